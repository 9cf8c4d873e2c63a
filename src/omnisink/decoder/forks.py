"""Run the first layers of a decoder twice over a prompt, and go on with the two merged.

Before the text model runs a prompt, it is called once more, and that second run ends where the layer is reached that
merges. There the first run goes on with both: with a residual stream of the two, and with keys and values of the two
in the layers behind it, so that every later pass is one run. Towers are not run again. A method tells the runs apart
by `in_second_run`, and sees each as a pass of its own; what it keeps of the second ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder import refusals
from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.arguments import find_cache
from omnisink.decoder.passes import continues

#: From what the first and the second run have for each token to what is used, of the same shape: (B, S, d) with the
#: tokens in dimension 1, or (B, K, T, D) with them in dimension 2.
Merge = Callable[[Tensor, Tensor, int], Tensor]

_SECOND: ContextVar[bool] = ContextVar("omnisink_second_run", default=False)


class SecondRunOver(Exception):
    """Ends the second run.

    Attributes
    ----------
    reached : tuple or None
        Residual stream (B, S, d) that enters the layer, and cache; None where nothing is merged.
    """

    def __init__(self, reached: tuple[Tensor, Any] | None = None) -> None:
        super().__init__("the second run is over")
        self.reached = reached


def in_second_run() -> bool:
    """Whether the pass that runs in this thread is a second run."""
    return _SECOND.get()


class Fork:
    """Two runs of a decoder's first layers over every prompt, for the length of a block.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder.
    layer : int
        The first layer that is run once; at least 1. Keys and values of all layers before it have to be reachable.
    merge : callable
        From both runs to one.
    owner : hashable
        Whose state tells a prompt from a later pass: that of the attachment of the method that forks.
    """

    def __init__(self, anatomy: Anatomy, layer: int, merge: Merge, owner: Hashable) -> None:
        self._anatomy, self._layer, self._merge, self._owner = anatomy, layer, merge, owner
        self._asked_layer = min(anatomy.attention)
        self._cache_of = find_cache(anatomy.text_model)
        self._second: tuple[Tensor, Any] | None = None
        self._attached = False

    def attach(self) -> Callable[[], None]:
        """Begin, and return what ends it."""
        text_model, layer = self._anatomy.text_model, self._anatomy.layers[self._layer]
        before: dict[str, Any] = {"with_kwargs": True, "prepend": True}  # Every method sees two passes.
        with ExitStack() as stack:
            run = torch.compiler.disable(self._run_second)
            stack.callback(text_model.register_forward_pre_hook(run, **before).remove)
            join = torch.compiler.disable(self._join)
            stack.callback(layer.register_forward_pre_hook(join, **before).remove)
            leave = torch.compiler.disable(self._leave)
            stack.callback(text_model.register_forward_hook(leave, always_call=True).remove)
            self._attached = True
            stack.callback(self._end)
            return stack.pop_all().close

    def _end(self) -> None:
        self._attached = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Fork:
        """Return itself: in a copy of the model, which has the hooks too, it does nothing."""
        return self

    def _run_second(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run a prompt as far as the layer, with a cache of its own."""
        if not self._attached or module is not self._anatomy.text_model:
            return
        cache = self._cache_of(args, kwargs)
        if in_second_run() or continues(cache, self._asked_layer, self._owner):
            return
        own = None if cache is None else deepcopy(cache)
        self._second = None
        with _second_run():
            try:
                module(*(own if one is cache else one for one in args), **_with(kwargs, cache, own))
            except SecondRunOver as over:
                self._second = over.reached

    def _join(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """End the second run before the layer, and merge it with the first."""
        if not self._attached or module is not self._anatomy.layers[self._layer]:
            return None
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        cache = find_cache(module)(args, kwargs)
        if in_second_run():
            if any(isinstance(one, MutableMapping) and len(one) for one in (*args, *kwargs.values())):
                raise refusals.not_merged(self._layer, "layers hand keys and values on to others")
            raise SecondRunOver((hidden, cache))
        if self._second is None:
            return None
        (other, of_other), self._second = self._second, None
        if cache is not None:
            self._merge_caches(cache, of_other, hidden.shape[1])
        merged = self._merge(hidden, other, 1)
        return ((merged, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": merged})

    def _merge_caches(self, cache: Any, of_other: Any, length: int) -> None:
        """Merge keys and values of a prompt of `length` tokens, padding included, in the layers before."""
        for number in range(self._layer):
            ours, others = cache.layers[number], of_other.layers[number]
            for name in ("keys", "values"):
                first, second = (getattr(one, name, None) for one in (ours, others))
                if not isinstance(first, Tensor) or not isinstance(second, Tensor) or first.shape != second.shape:
                    raise refusals.not_merged(number, f"its cache is a {type(ours).__name__}")
                if first.shape[2] < length and not getattr(ours, "is_sliding", False):
                    raise refusals.not_merged(number, f"its {type(ours).__name__} does not hold them as they are")
                merged = self._merge(first, second, 2)
                if getattr(cache, "is_compileable", False):
                    first.copy_(merged)  # A graph may read it where it is.
                else:
                    setattr(ours, name, merged)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Forget a second run that was not merged, as after an error."""
        if not in_second_run():
            self._second = None


@contextmanager
def _second_run() -> Iterator[None]:
    token = _SECOND.set(True)
    try:
        yield
    finally:
        _SECOND.reset(token)


def _with(kwargs: dict[str, Any], cache: Any, own: Any) -> dict[str, Any]:
    return {name: own if cache is not None and one is cache else one for name, one in kwargs.items()}
