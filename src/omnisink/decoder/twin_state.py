"""What twins of a pass go on from: caches of their own, which become one cache where their steps can be one batch.

A step of a small batch takes about as long as reading the weights does, however many sequences there are in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from omnisink.decoder.branches import InBranch
from omnisink.decoder.caches import SequenceState, states_of, store_state, without_states
from omnisink.decoder.rotary_offsets import Offsets


@dataclass
class TwinState(SequenceState):
    """What the twins of the sequences of one cache go on from.

    Attributes
    ----------
    caches : list
        The cache of each twin, None where the model makes none; or one with the sequences of all.
    prompt_lengths : list of int
        Tokens of each twin's prompt, padding included.
    offsets : list
        What the model keeps of positions, for each twin; see `omnisink.decoder.rotary_offsets`.
    joined : bool or None
        Whether one cache has the sequences of all twins; None before that was tried.
    """

    caches: list[Any] = field(default_factory=list)
    prompt_lengths: list[int] = field(default_factory=list)
    offsets: list[Offsets] = field(default_factory=list)
    joined: bool | None = None

    def join(self) -> None:
        """Put the sequences of all twins into one cache where that is possible; it is tried once."""
        if self.joined is None:
            # With prompts of their own, they have arguments of other shapes than those without.
            own = sum(("mask", number) in self.tensors for number in range(1, len(self.caches) + 1))
            whole = in_one(self.caches) if own in (0, len(self.caches)) else None
            self.joined = whole is not None
            if self.joined:
                self.caches = [whole]

    def cache_of(self, number: int) -> Any:
        """Return the cache that a twin's sequences stand in."""
        return self.caches[0 if self.joined else number - 1]

    def select(self, index: Tensor) -> None:
        """Let the twins' caches follow, and what is kept beside them."""
        of_all = (
            torch.cat([index + first * self.batch for first in range(len(self.offsets))]) if self.joined else index
        )
        super().select(index)
        for cache in self.caches:
            cache.reorder_cache(of_all)  # An `index_select`, which also drops and repeats.

    def after_crop(self, held: Any) -> None:
        """Let the twins' caches forget as many tokens as the first pass's did."""
        super().after_crop(held)
        for number, cache in enumerate(self.caches):  # In one cache, all prompts are of one length.
            prompt = self.prompt_lengths[number]
            if gone := int(cache.get_seq_length(self.layer)) - prompt - (int(held) - self.length):
                cache.crop(-gone)

    def __deepcopy__(self, memo: dict[int, Any]) -> TwinState:
        """Copy the caches with a copied cache."""
        copied = super().__deepcopy__(memo)
        assert isinstance(copied, TwinState)
        copied.caches = [deepcopy(cache, memo) for cache in self.caches]
        return copied


def in_one(caches: Sequence[Any]) -> DynamicCache | None:
    """Return a cache with the sequences of several and what methods keep on them; None where that is not possible.

    It is for two or more dynamic caches that hold as many tokens each, where every method that does anything in a step
    acts in all branches, and keeps tensors of the same shapes for each.
    """
    if len(caches) < 2 or any(type(one) is not DynamicCache or getattr(one, "offloading", False) for one in caches):
        return None
    layers = [list(one.layers) for one in caches]
    if len({len(one) for one in layers}) > 1 or not all(map(_alike, zip(*layers, strict=True))):
        return None
    states = _states_in_one([states_of(one) for one in caches])
    if states is None:
        return None
    whole: DynamicCache = without_states(caches[0])
    whole.layers = [_layer_in_one(same) for same in zip(*layers, strict=True)]
    for owner, state in states.items():
        store_state(whole, owner, state)
    return whole


def _alike(layers: Sequence[Any]) -> bool:
    """Whether layers of several caches can be one: of a kind that is known, and of one shape."""
    first = layers[0]
    return all(
        type(one) is type(first)
        and type(one) in (DynamicLayer, DynamicSlidingWindowLayer)
        and one.is_initialized == first.is_initialized
        and one.get_seq_length() == first.get_seq_length()
        and not getattr(one, "record_past", False)
        and (not one.is_initialized or (one.keys.shape, one.values.shape) == (first.keys.shape, first.values.shape))
        for one in layers
    )


def _layer_in_one(layers: Sequence[Any]) -> Any:
    whole = copy(layers[0])
    if whole.is_initialized:
        whole.keys = torch.cat([one.keys for one in layers])
        whole.values = torch.cat([one.values for one in layers])
    return whole


def _states_in_one(states: Sequence[dict[Hashable, SequenceState]]) -> dict[Hashable, SequenceState] | None:
    """Return what methods keep for the sequences of several caches, without those that do nothing in a step."""
    found: dict[Hashable, SequenceState] = {}
    for owner in dict.fromkeys(owner for one in states for owner in one):
        branch = isinstance(owner, InBranch)
        in_steps = getattr(owner.owner if isinstance(owner, InBranch) else owner, "in_steps", "anything")
        if in_steps == "nothing":
            continue
        kept = [one.get(owner) for one in states]
        whole = None if branch or in_steps != "by sequence" else _state_in_one(kept)
        if whole is None:
            return None
        found[owner] = whole
    return found


def _state_in_one(states: Sequence[SequenceState | None]) -> SequenceState | None:
    first = states[0]
    shapes = [
        None if one is None else (one.length, {key: (t.dtype, t.shape) for key, t in one.tensors.items()})
        for one in states
    ]
    if first is None or type(first) is not SequenceState or any(one != shapes[0] for one in shapes):
        return None
    tensors = {key: torch.cat([one.tensors[key] for one in states if one is not None]) for key in first.tensors}
    return SequenceState(first.batch * len(states), tensors, first.record, first.length, first.layer)
