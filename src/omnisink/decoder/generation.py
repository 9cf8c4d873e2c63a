"""Stand before the ways of generating: stop those under which a method would be silently wrong, watch the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any

from torch import nn

from omnisink.decoder import refusals
from omnisink.decoder.patching import PATCHES, replace_attribute
from omnisink.decoder.threads import ThreadGuard

#: By the id of a generating module, the guards of what is attached to it. The module itself carries no mark, as its
#: copies would carry it too.
_GUARDS: dict[int, tuple[ThreadGuard, ...]] = {}


def watch_generation(model: nn.Module, guard: ThreadGuard) -> list[Callable[[], None]]:
    """Refuse continuous batching, chunked prefill and drafts on every generating module of a model with a method.

    `guard` is told of every `generate`. Each of the functions that are returned takes one part of it away.
    """
    stops: list[Callable[[], None]] = []
    for module in model.modules():
        if not hasattr(module, "generate"):
            continue
        key = id(module)
        _GUARDS[key] = (*_GUARDS.get(key, ()), guard)
        stops.append(partial(_let_go, key, guard))
        for name in _CHECKED:
            # Where an object has a function of its own, that is what is called, and not its class's.
            owner = next((o for o in (module, *type(module).__mro__) if name in vars(o)), None)
            if owner is not None:
                identity = id(owner) if owner is module else owner
                stops.append(PATCHES.acquire((identity, name), partial(_stand_before, owner, name, key)))
    return stops


def _let_go(key: int, guard: ThreadGuard) -> None:
    _GUARDS[key] = tuple(one for one in _GUARDS[key] if one is not guard)
    if not _GUARDS[key]:
        del _GUARDS[key]


def _stand_before(owner: Any, name: str, key: int) -> Callable[[], None]:
    """Check the calls of a function of a class, or of one module, where something is attached to the module."""
    original = vars(owner)[name]
    bound = isinstance(owner, nn.Module)

    @wraps(original)
    def standing(*args: Any, **kwargs: Any) -> Any:
        guards = _GUARDS.get(key if bound else id(args[0]), ())
        if guards and _CHECKED[name] is not None:
            _CHECKED[name](*(args if bound else args[1:]), **kwargs)
            guards = ()
        with ExitStack() as stack:
            for guard in guards:
                stack.enter_context(guard.generating())
            return original(*args, **kwargs)

    return replace_attribute(owner, name, standing)


def _refuse(error: Callable[[], Exception], *args: Any, **kwargs: Any) -> None:
    raise error()


def _refuse_chunks(input_ids: Any = None, generation_config: Any = None, *args: Any, **kwargs: Any) -> None:
    if getattr(generation_config, "prefill_chunk_size", None) is not None:
        raise refusals.chunked_prefill()


#: What generates, by the name of the function, and what is checked before it; None: nothing, but threads are noted.
_CHECKED: dict[str, Any] = {
    "generate": None,
    "_prefill": _refuse_chunks,
    # Whatever makes drafts: another model, the prompt itself, an early exit, extra heads.
    "_get_candidate_generator": partial(_refuse, refusals.drafts),
    **{
        name: partial(_refuse, partial(refusals.batching, name))
        for name in ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")
    },
}
