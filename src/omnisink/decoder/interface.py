"""Stand in front of transformers' attention functions, for marked modules only.

An entry of the model's current name is put into the interface's local mapping, in front of the global one, and taken
out again. A new name would be a trap: transformers chooses masks by that name, and padding would be dropped silently.
Every model of the process that uses the name then passes through `_attend`; modules without a mark are handed straight
on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from omnisink.decoder import refusals
from omnisink.decoder.anatomy import AttentionSite
from omnisink.decoder.attention_code import resolve_interface
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.patching import PATCHES

#: Plain attribute of a marked attention module: what acts on its calls, in the order in which it was attached.
LISTENERS = "_omnisink_listeners"


def listen(site: AttentionSite, layer: int, context: Context) -> Callable[[], None]:
    """Pass the calls of the attention module of a layer, and its head outputs, through a method.

    The function that is returned ends it and leaves no trace on the module or the interface.
    """
    key = (id(site.interface), site.backend)
    release = PATCHES.acquire(key, lambda: _stand_in_front(site.interface, site.backend))
    entry = (site, layer, context)
    object.__setattr__(site.module, LISTENERS, (*vars(site.module).get(LISTENERS, ()), entry))

    def stop() -> None:
        left = tuple(e for e in vars(site.module)[LISTENERS] if e is not entry)
        if left:
            object.__setattr__(site.module, LISTENERS, left)
        else:
            object.__delattr__(site.module, LISTENERS)
        release()

    return stop


def _stand_in_front(interface: Any, backend: str) -> Callable[[], None]:
    """Put a local entry for `backend` into the interface and return its undoing."""
    mapping: dict[str, Any] = interface._local_mapping
    had, own = backend in mapping, interface.get(backend)
    if own is None and backend != "eager":
        raise refusals.unknown_backend(backend)

    # The names are transformers' own: some modules pass them as keywords.
    def front(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
        return _attend(own or _eager_of(module), module, query, key, value, attention_mask, kwargs)

    mapping[backend] = front

    def undo() -> None:
        if had:
            mapping[backend] = own
        else:
            del mapping[backend]

    return undo


def _eager_of(module: nn.Module) -> Callable[..., Any]:
    """Return the function that the module's own file runs for "eager", which the interface does not list."""
    listeners = vars(module).get(LISTENERS)
    eager = listeners[0][0].eager if listeners else resolve_interface(module)[1]
    if eager is None:
        raise refusals.no_eager_function(module)
    return eager


def _attend(
    function: Callable[..., Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    kwargs: dict[str, Any],
) -> Any:
    """Ask every method before, in place of and after the attention function, each in the order of attachment."""
    listeners = vars(module).get(LISTENERS)
    if not listeners:
        return function(module, query, key, value, mask, **kwargs)
    site, layer, first = listeners[0]
    if first.step is not None and len(listeners) == 1:
        found = function(module, query, key, value, mask, **kwargs)
        change = first.step.get(layer)
        return found if change is None else (change(found[0]), *found[1:])
    refuse_packed(kwargs)
    acting = [context for _, _, context in listeners if context.acts_on(layer)]
    window = kwargs.get("sliding_window") or site.window
    length = acting[0].now.state.length if acting else None
    call = AttentionCall(layer, query, key, value, kwargs.get("scaling"), window, kwargs, mask, length)
    for context in acting:
        if context.looks_at_input:
            call = context.method.attention_input(call, context)
    output, rest = None, [None]  # No weights where a method answers.
    for context in acting:
        if context.may_answer and (answer := context.method.attend(call, context)) is not None:
            expected = (*query.transpose(1, 2).shape[:3], value.shape[3])
            if output is not None or answer.shape != expected:
                raise refusals.answer(layer, context.method, answer, expected)
            output = answer
    if output is None:
        output, *rest = function(module, call.query, call.key, call.value, mask, **kwargs)
    for context in acting:
        output = context.method.head_output(call, output, context)
    return (output, *rest)


def refuse_packed(kwargs: Mapping[str, Any]) -> None:
    """Refuse a call of a decoder layer or of an attention function whose rows are not one sequence each."""
    for name in refusals.PACKED:
        if kwargs.get(name) is not None:
            raise refusals.packed(name)
