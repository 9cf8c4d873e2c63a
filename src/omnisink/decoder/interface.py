"""Stand in front of transformers' attention functions, for marked modules only.

An entry of the model's current name is put into the interface's local mapping, in front of the global one, and taken
out again. A new name would be a trap: transformers chooses masks by that name, and padding would be dropped silently.
Every model of the process that uses the name then passes through `_through_listeners`; modules without a mark are
handed straight on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from omnisink.decoder.anatomy import AttentionSite
from omnisink.decoder.attention_code import resolve_interface
from omnisink.decoder.patching import PATCHES
from omnisink.errors import UnsupportedModelError

#: Plain attribute of a marked attention module: the listeners to its calls, in the order they were attached.
LISTENERS = "_omnisink_listeners"

#: Keywords by which engines pass several sequences in one row; there "the prompt" is not what the layer received.
_PACKED = {
    "cache": "continuous batching (a paged cache)",
    "cu_seq_lens_q": "sequences packed into one row (cu_seq_lens_q)",
    "cu_seq_lens_k": "sequences packed into one row (cu_seq_lens_k)",
}


@dataclass(slots=True)
class AttentionCall:
    """One call of a layer's attention function, as a method sees it.

    Attributes
    ----------
    layer : int
        Index of the decoder layer.
    query : Tensor
        (B, H, S, D), after position encoding and norms.
    key, value : Tensor
        (B, K, T, D) and (B, K, T, D'), after the cache update, before repetition; T may exceed the tokens held where
        the cache is static.
    scaling : float or None
        The module's softmax scale; None is ``1 / sqrt(D)``.
    window : int or None
        Keys a query reaches back over; None where that is the whole prompt.
    options : Mapping
        Every other keyword of the call (``softcap``, ``s_aux``, ...).
    mask : object
        The attention mask as the backend takes it; see `omnisink.decoder.masks.visible_keys`.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float | None
    window: int | None
    options: Mapping[str, Any]
    mask: Any = None


class Listener(Protocol):
    """Stands before and behind the attention function of one module.

    Attributes
    ----------
    step : mapping of int to callable, or None
        In a pass of which only head outputs (B, S, H, D') matter: what each layer's go through; a layer that is
        missing keeps its own. Nothing else is asked then. None: the pass is of another kind.
    """

    @property
    def step(self) -> Mapping[int, Callable[[Tensor], Tensor]] | None:
        """What head outputs go through, by layer."""

    def idle(self, layer: int) -> bool:
        """Whether a layer whose residual stream it has seen may be left out: it neither changes nor looks at more."""

    def attention_input(self, call: AttentionCall) -> AttentionCall:
        """Return the call to make: the one given, or one with other queries, keys or values of the same shapes."""

    def head_output(self, call: AttentionCall, output: Tensor) -> Tensor:
        """Take the call that was made and its head outputs (B, S, H, D'), and return the head outputs to use."""


def listen(site: AttentionSite, layer: int, listener: Listener) -> Callable[[], None]:
    """Pass the calls of one attention module and its head outputs through `listener`.

    Parameters
    ----------
    site : AttentionSite
        The attention module.
    layer : int
        Index of its decoder layer, handed on in every call.
    listener : Listener
        What is asked before and after every call.

    Returns
    -------
    callable
        Ends it and leaves no trace on the module or the interface.
    """
    release = PATCHES.acquire(
        (id(site.interface), site.backend), lambda: _stand_in_front(site.interface, site.backend)
    )
    entry = (site, layer, listener)
    marks = vars(site.module).get(LISTENERS, ())
    object.__setattr__(site.module, LISTENERS, (*marks, entry))

    def stop() -> None:
        left = tuple(e for e in vars(site.module)[LISTENERS] if e is not entry)
        if left:
            object.__setattr__(site.module, LISTENERS, left)
        else:
            object.__delattr__(site.module, LISTENERS)
        release()

    return stop


def needed(site: AttentionSite, layer: int) -> bool:
    """Whether any listener to an attention module wants the layer to run, now that its residual stream is known."""
    return not all(listener.idle(layer) for _, _, listener in vars(site.module).get(LISTENERS, ()))


def _stand_in_front(interface: Any, backend: str) -> Callable[[], None]:
    """Put a local entry for `backend` into the interface and return its undoing."""
    mapping: dict[str, Any] = interface._local_mapping
    had = backend in mapping
    own = interface.get(backend)

    if own is None and backend == "eager":

        def front(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
        ) -> Any:
            return _through_listeners(_eager_of(module), module, query, key, value, attention_mask, kwargs)

    elif own is None:
        raise UnsupportedModelError(f"attention implementation {backend!r} is not registered with transformers")
    else:

        def front(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
        ) -> Any:
            return _through_listeners(own, module, query, key, value, attention_mask, kwargs)

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
        raise UnsupportedModelError(f"{type(module).__name__}: its file has no eager attention function")
    return eager


def _through_listeners(
    function: Callable[..., Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    kwargs: dict[str, Any],
) -> Any:
    listeners = vars(module).get(LISTENERS)
    if not listeners:
        return function(module, query, key, value, attention_mask, **kwargs)
    site, layer, first = listeners[0]
    step = first.step
    if step is not None and len(listeners) == 1:
        found = function(module, query, key, value, attention_mask, **kwargs)
        turn = step.get(layer)
        return found if turn is None else (turn(found[0]), *found[1:])
    refuse_packed(kwargs)
    window = kwargs.get("sliding_window") or site.window
    call = AttentionCall(layer, query, key, value, kwargs.get("scaling"), window, kwargs, attention_mask)
    for _, _, listener in listeners:
        call = listener.attention_input(call)
    output, *rest = function(module, call.query, call.key, call.value, attention_mask, **kwargs)
    for _, _, listener in listeners:
        output = listener.head_output(call, output)
    return (output, *rest)


def refuse_packed(kwargs: Mapping[str, Any]) -> None:
    """Raise where the rows of this call are not one sequence each.

    Parameters
    ----------
    kwargs : Mapping
        Keywords of a decoder layer or of an attention function.

    Raises
    ------
    UnsupportedModelError
        Naming what was passed.
    """
    for name, what in _PACKED.items():
        if name in kwargs and kwargs[name] is not None:
            raise UnsupportedModelError(
                f"{what} is not supported: sinks and medians belong to one prompt, which this call does not keep apart"
            )
