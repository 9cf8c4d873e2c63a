"""Stand before the ways of generating: stop those under which a method would be silently wrong, watch the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any

from torch import nn

from omnisink.decoder.patching import PATCHES, replace_attribute
from omnisink.decoder.threads import ThreadGuard
from omnisink.errors import UnsupportedModelError

#: By the id of a generating module, the guards of what is attached to it. The module itself carries no mark, as its
#: copies would carry it too.
_GUARDS: dict[int, tuple[ThreadGuard, ...]] = {}


def watch_generation(model: nn.Module, guard: ThreadGuard) -> list[Callable[[], None]]:
    """Refuse continuous batching, chunked prefill and drafts on every generating module of `model`.

    Parameters
    ----------
    model : nn.Module
        The model a method is attached to.
    guard : ThreadGuard
        Is told of every `generate`.

    Returns
    -------
    list of callable
        Each takes one part of it away.
    """
    stops: list[Callable[[], None]] = []
    for module in model.modules():
        if not hasattr(module, "generate"):
            continue
        key = id(module)
        _GUARDS[key] = (*_GUARDS.get(key, ()), guard)
        stops.append(partial(_let_go, key, guard))
        for name, check in _CHECKS.items():
            # Where an object has a function of its own, that is what is called, and not its class's.
            owner = (
                module if name in vars(module) else next((c for c in type(module).__mro__ if name in vars(c)), None)
            )
            if owner is not None:
                identity = id(owner) if owner is module else owner
                stops.append(PATCHES.acquire((identity, name), partial(_stand_before, owner, name, check, key)))
    return stops


def _let_go(key: int, guard: ThreadGuard) -> None:
    left = tuple(one for one in _GUARDS[key] if one is not guard)
    if left:
        _GUARDS[key] = left
    else:
        del _GUARDS[key]


def _stand_before(owner: Any, name: str, check: Callable[..., None] | None, key: int) -> Callable[[], None]:
    """Call `check` before a function of a class, or of one module, where something is attached to the module."""
    original = vars(owner)[name]
    bound = isinstance(owner, nn.Module)

    @wraps(original)
    def standing(*args: Any, **kwargs: Any) -> Any:
        guards = _GUARDS.get(key if bound else id(args[0]), ())
        if not guards:
            return original(*args, **kwargs)
        if check is not None:
            check(*(args if bound else args[1:]), **kwargs)
            return original(*args, **kwargs)
        with ExitStack() as stack:
            for guard in guards:
                stack.enter_context(guard.generating())
            return original(*args, **kwargs)

    return replace_attribute(owner, name, standing)


def _refuse_batching(name: str, *args: Any, **kwargs: Any) -> None:
    raise UnsupportedModelError(
        f"{name} is not supported: continuous batching packs several prompts into one row, and sinks belong "
        "to one prompt. Use generate() with a padded batch"
    )


def _refuse_drafts(*args: Any, **kwargs: Any) -> None:
    raise UnsupportedModelError(
        "assisted decoding runs the prompt and a draft of what follows in one pass, so that the draft would count as "
        "prompt: it would change the sinks and the answer. Leave assistant_model, prompt_lookup_num_tokens and "
        "assistant_early_exit out inside the `with` block"
    )


def _refuse_chunks(input_ids: Any = None, generation_config: Any = None, *args: Any, **kwargs: Any) -> None:
    if getattr(generation_config, "prefill_chunk_size", None) is not None:
        raise UnsupportedModelError(
            "prefill_chunk_size splits one prompt over several passes: the first chunk's sinks could not see the "
            "rest. Leave it out inside the `with` block"
        )


#: What generates, by the name of the function, and what is checked before it; None: nothing, but threads are noted.
_CHECKS: dict[str, Callable[..., None] | None] = {
    "generate": None,
    "_prefill": _refuse_chunks,
    # Whatever makes drafts: another model, the prompt itself, an early exit, extra heads.
    "_get_candidate_generator": _refuse_drafts,
    **{
        name: partial(_refuse_batching, name)
        for name in ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")
    },
}
