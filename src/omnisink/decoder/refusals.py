"""Ways of generating under which a method would be silently wrong, stopped where they begin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from omnisink.decoder.patching import PATCHES, replace_attribute
from omnisink.errors import UnsupportedModelError

_BATCHING = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")


def refuse_on(model: nn.Module) -> list[Callable[[], None]]:
    """Refuse continuous batching and chunked prefill on every generating module of `model`.

    Parameters
    ----------
    model : nn.Module
        The model a method is attached to.

    Returns
    -------
    list of callable
        Each takes one refusal away.
    """
    stops: list[Callable[[], None]] = []
    for module in model.modules():
        if not hasattr(module, "generate"):
            continue
        stops.extend(
            PATCHES.acquire((id(module), name), partial(_refuse_batching, module, name))
            for name in _BATCHING
            if hasattr(module, name)
        )
        if hasattr(module, "_prefill"):
            stops.append(PATCHES.acquire((id(module), "_prefill"), partial(_check_prefill, module)))
    return stops


def _refuse_batching(module: nn.Module, name: str) -> Callable[[], None]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UnsupportedModelError(
            f"{name} is not supported: continuous batching packs several prompts into one row, and sinks belong "
            "to one prompt. Use generate() with a padded batch"
        )

    return replace_attribute(module, name, refuse)


def _check_prefill(module: nn.Module) -> Callable[[], None]:
    original: Callable[..., Any] = module._prefill  # type: ignore[assignment]

    def prefill(input_ids: Any, generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(generation_config, "prefill_chunk_size", None) is not None:
            raise UnsupportedModelError(
                "prefill_chunk_size splits one prompt over several passes: the first chunk's sinks could not see the "
                "rest. Leave it out inside the `with` block"
            )
        return original(input_ids, generation_config, *args, **kwargs)

    return replace_attribute(module, "_prefill", prefill)
