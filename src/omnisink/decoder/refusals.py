"""Ways of generating under which a method would be silently wrong, stopped where they begin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from torch import nn

from omnisink.decoder.patching import PATCHES, replace_attribute
from omnisink.errors import UnsupportedModelError

_BATCHING = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")
#: What makes drafts, of whatever kind: another model, the prompt itself, an early exit, extra heads.
_DRAFTS = "_get_candidate_generator"


def refuse_on(model: nn.Module) -> list[Callable[[], None]]:
    """Refuse continuous batching, chunked prefill and drafts on every generating module of `model`.

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
        replaced = {**dict.fromkeys(_BATCHING, _refuse_batching), _DRAFTS: _refuse_drafts, "_prefill": _check_prefill}
        stops.extend(
            PATCHES.acquire((id(module), name), partial(replacement, module, name))
            for name, replacement in replaced.items()
            if hasattr(module, name)
        )
    return stops


def _refuse_batching(module: nn.Module, name: str) -> Callable[[], None]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UnsupportedModelError(
            f"{name} is not supported: continuous batching packs several prompts into one row, and sinks belong "
            "to one prompt. Use generate() with a padded batch"
        )

    return replace_attribute(module, name, refuse)


def _refuse_drafts(module: nn.Module, name: str) -> Callable[[], None]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UnsupportedModelError(
            "assisted decoding runs the prompt and a draft of what follows in one pass, so that the draft would count "
            "as prompt: it would change the sinks and the answer. Leave assistant_model, prompt_lookup_num_tokens and "
            "assistant_early_exit out inside the `with` block"
        )

    return replace_attribute(module, name, refuse)


def _check_prefill(module: nn.Module, name: str) -> Callable[[], None]:
    original: Callable[..., Any] = getattr(module, name)

    @wraps(original)
    def prefill(input_ids: Any, generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(generation_config, "prefill_chunk_size", None) is not None:
            raise UnsupportedModelError(
                "prefill_chunk_size splits one prompt over several passes: the first chunk's sinks could not see the "
                "rest. Leave it out inside the `with` block"
            )
        return original(input_ids, generation_config, *args, **kwargs)

    return replace_attribute(module, name, prefill)
