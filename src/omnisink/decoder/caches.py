"""What a method remembers of a prefill, kept with the cache it belongs to.

The key/value cache is the one object that identifies a batch of sequences from prefill to the last generated token. A
method's tensors live on it, and follow it when beams are reordered, sequences are selected or repeated, and when it is
emptied.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from omnisink.decoder import refusals
from omnisink.decoder.following import FOLLOWED
from omnisink.decoder.patching import PATCHES, replace_attribute
from omnisink.decoder.places import Places

_STATES = "_omnisink_states"
#: Tensors of states that a reset has ended, by owner; see `Places`.
_SPARE = "_omnisink_spare"


@dataclass
class SequenceState:
    """Tensors a method keeps for the sequences of one cache.

    Attributes
    ----------
    batch : int
        Number of sequences.
    tensors : dict
        By any key; the first dimension of every tensor is the sequence.
    record : object
        What the method reports of this prefill; shared by copies of the cache.
    length : int
        Tokens S of the prefill, padding included: the cache must go on holding all of them.
    layer : int
        A layer whose cached length can be asked for.
    places : Places or None
        Where tensors stand that outlive the prefill; None where there is no cache to read them from.
    prepared : object
        What the method has prepared for the passes to come, as long as `tensors` stay the same.
    """

    batch: int
    tensors: dict[Hashable, Tensor] = field(default_factory=dict)
    record: Any = None
    length: int = 0
    layer: int = 0
    places: Places | None = None
    prepared: Any = None

    def place(self, key: Hashable, shape: tuple[int, ...], device: torch.device, room: int = 1) -> Tensor | None:
        """Return a float32 tensor to be written to and kept under `key`; None where a new one will do.

        `room` says how many of this shape are going to be asked for. For a single one a new one will do, unless a
        graph may read the old one, and in a graph that is being compiled, of which it would be an input that the
        graph changes. See `Places.take`.
        """
        places = None if torch.compiler.is_compiling() else self.places
        if places is None or (room == 1 and not places.fixed):
            return None
        return places.take(key, shape, device, room)

    def check_length(self, held: Any) -> None:
        """Refuse a cache that was cut to less than the prompt.

        `held` is the number of tokens in the cache. A tensor, which only the device knows, is of a static cache, and
        those are not cut.
        """
        if isinstance(held, int) and 0 < held < self.length:
            raise refusals.cut_prompt(held, self.length)

    def after_crop(self, held: Any) -> None:
        """Follow a cache that was cut to `held` tokens."""
        self.check_length(held)

    def select(self, index: Tensor) -> None:
        """Keep, reorder or repeat sequences: the new sequence i is the old sequence ``index[i]``."""
        self.batch = len(index)
        self.prepared = None
        self.tensors = {k: t.index_select(0, index.to(t.device)) for k, t in self.tensors.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> SequenceState:
        """Copy the tensors with a copied cache (contrastive branches, prefix reuse) and share the record."""
        return replace(self, tensors={k: t.clone() for k, t in self.tensors.items()}, prepared=None)


def stored_state(cache: Any, owner: Hashable) -> SequenceState | None:
    """Return what `owner` keeps on `cache`, or None."""
    states = vars(cache).get(_STATES)
    return None if states is None else states.get(owner)


def states_of(cache: Any) -> dict[Hashable, SequenceState]:
    """Return all that is kept on `cache`, by owner."""
    states: dict[Hashable, SequenceState] = vars(cache).get(_STATES, {})
    return states


def without_states(cache: Any) -> Any:
    """Return a shallow copy of a cache, with nothing kept on it."""
    bare = copy(cache)
    for name in (_STATES, _SPARE):
        vars(bare).pop(name, None)
    return bare


def spare_tensors(cache: Any, owner: Hashable) -> dict[Hashable, Tensor]:
    """Return the tensors that `owner` kept on `cache` before it was emptied, to be used again; only once."""
    spare: dict[Hashable, dict[Hashable, Tensor]] = vars(cache).get(_SPARE, {})
    return spare.pop(owner, {})


def store_state(cache: Any, owner: Hashable, state: SequenceState) -> None:
    """Keep `state` on `cache` for `owner`, in place of an earlier one."""
    vars(cache).setdefault(_STATES, {})[owner] = state


def follow(cache_type: type) -> list[Callable[[], None]]:
    """Make states follow what is done to caches of this type, `transformers.Cache` or one derived from it.

    Each of the functions that are returned ends one part of it.
    """
    stops = []
    for name, index_of in FOLLOWED.items():
        owner = next((c for c in cache_type.__mro__ if name in vars(c)), None)
        if owner is not None:
            stops.append(PATCHES.acquire((owner, name), partial(_wrap, owner, name, index_of)))
    return stops


def _wrap(owner: type, name: str, index_of: Callable[..., Tensor | None]) -> Callable[[], None]:
    original = vars(owner)[name]

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        states: dict[Hashable, SequenceState] = vars(self).get(_STATES, {})
        for state in states.values():
            index = index_of(state.batch, *args, **kwargs)
            if index is not None:
                state.select(index)
            if name == "crop":
                state.after_crop(self.get_seq_length(state.layer))
        if name == "reset":
            for owner_of_state, state in states.items():
                vars(self).setdefault(_SPARE, {})[owner_of_state] = state.tensors
            states.clear()
        return result

    return replace_attribute(owner, name, wrapped)


#: The class all of transformers' caches share.
BASE_CACHE: type = Cache
