"""Stand in front of a module's ``forward``: look at a call, let it run, or answer it with what it returned before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from omnisink.decoder.caches import BASE_CACHE
from omnisink.decoder.patching import replace_attribute


@dataclass(frozen=True)
class Call:
    """A call of a module's ``forward`` that has not run yet."""

    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        """Run it and return its output."""
        return self.forward(*self.args, **self.kwargs)

    @property
    def values(self) -> list[Any]:
        """Tensors and plain values it was given, however deep, in an order of their own."""
        leaves = tree_leaves((self.args, sorted(self.kwargs.items())))
        return [leaf for leaf in leaves if isinstance(leaf, (Tensor, bool, int, float, str))]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among `values`."""
        return [value for value in self.values if isinstance(value, Tensor)]

    @property
    def hidden(self) -> Tensor | None:
        """Residual stream given to a decoder layer, (B, S, d), if it is given one."""
        hidden = self.args[0] if self.args else self.kwargs.get("hidden_states")
        return hidden if isinstance(hidden, Tensor) and hidden.dim() == 3 else None

    @property
    def cache(self) -> Any:
        """The key/value cache it was given, or None."""
        return next((value for value in (*self.args, *self.kwargs.values()) if isinstance(value, BASE_CACHE)), None)

    @property
    def continues(self) -> bool:
        """Whether the cache it was given holds tokens already, so that it goes on with a sequence."""
        return self.cache is not None and bool(self.cache.get_seq_length() > 0)

    @property
    def mappings(self) -> list[MutableMapping[Any, Any]]:
        """What it may write to: layers that share keys and values hand them on in a mapping they are given."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, MutableMapping)]

    def record(self, inputs: list[Any]) -> tuple[RecordedCall, Any]:
        """Run it.

        Parameters
        ----------
        inputs : list
            What the record says it was given.

        Returns
        -------
        tuple of Record and object
            The record, which shares nothing with the output but `inputs`, and the output.
        """
        held = [dict(mapping) for mapping in self.mappings]
        with _listening(self.cache) as updates:
            output = self.run()
        written = [
            {key: value for key, value in mapping.items() if old.get(key) is not value}
            for mapping, old in zip(self.mappings, held, strict=True)
        ]
        return RecordedCall(inputs, copied(output), copied(written), updates), output


@dataclass(frozen=True)
class RecordedCall:
    """A call that ran: what it was given and returned, and what it wrote into mappings and a cache it was given."""

    inputs: list[Any]
    output: Any
    written: list[dict[Any, Any]]
    #: Method, arguments and keywords of every update of the cache; None where no cache was given.
    updates: list[tuple[str, Any, Any]] | None = None

    @property
    def hidden(self) -> Any:
        """Residual stream that a decoder layer returned: its output, or the first of several."""
        return self.output[0] if isinstance(self.output, tuple) else self.output

    def serves(self, cache: Any) -> bool:
        """Whether a cache would be filled as the layer fills it."""
        return cache is None or self.updates is not None

    def answer(self, call: Call) -> Any:
        """Write for `call` what was written, and return a copy of what was returned."""
        for mapping, entries in zip(call.mappings, self.written, strict=True):
            mapping.update(copied(entries))
        if call.cache is not None:
            for name, args, kwargs in self.updates or ():
                getattr(call.cache, name)(*copied(args), **copied(kwargs))
        return copied(self.output)


def stand_in_front(module: nn.Module, answer: Callable[[Call], Any]) -> Callable[[], None]:
    """Let ``answer(call)`` give the output of every call of `module`; its hooks stay outside.

    Returns
    -------
    callable
        Takes it away and leaves the module as it was.
    """
    forward = module.forward

    @wraps(forward)
    def front(*args: Any, **kwargs: Any) -> Any:
        return answer(Call(forward, args, kwargs))

    return replace_attribute(module, "forward", front)


@contextmanager
def _listening(cache: Any) -> Iterator[list[tuple[str, Any, Any]] | None]:
    """Note with what a cache is updated meanwhile: its keys and values, or the states of layers of another kind."""
    if cache is None:
        yield None
        return
    heard: list[tuple[str, Any, Any]] = []

    def hear(name: str, update: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        heard.append((name, copied(args), copied(kwargs)))
        return update(*args, **kwargs)

    with ExitStack() as stack:
        for name in (name for name in dir(type(cache)) if name.startswith("update")):
            stack.callback(replace_attribute(cache, name, partial(hear, name, getattr(cache, name))))
        yield heard


def copied(value: Any) -> Any:
    """Copy the tensors of a structure, as constants that no later change in place reaches."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), value)


def same(found: list[Any], recorded: list[Any]) -> bool:
    """Whether tensors and plain values are equal to the bit, of the same types and on the same devices."""
    return len(found) == len(recorded) and all(_equal(a, b) for a, b in zip(found, recorded, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    return bool(type(a) is type(b) and a == b)
