"""Tell a prefill from a later pass over the same sequences."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from omnisink.decoder import refusals
from omnisink.decoder.caches import SequenceState, spare_tensors, store_state, stored_state
from omnisink.decoder.places import Places
from omnisink.errors import OmnisinkError


@dataclass
class Pass:
    """One forward pass through the decoder.

    Attributes
    ----------
    is_prefill : bool
        Whether the pass starts its sequences; otherwise it continues those of a cache.
    batch, length : int
        B and S of this pass.
    device : torch.device
        Where the residual stream enters the decoder.
    token_mask : Tensor or None
        (B, S) bool, False at padding; None where every token is real.
    state : SequenceState
        What the method keeps for these sequences.
    deferred_checks : list of (Tensor, OmnisinkError)
        Bool scalars that must turn out False, and what to raise if one does not: what only the device knows.
    held : Tensor or None
        The cache's own count of its tokens, where it keeps one on the device and advances it in place.
    cache : object
        The cache itself while the pass runs; None where nothing is cached.
    """

    is_prefill: bool
    batch: int
    length: int
    device: torch.device
    token_mask: Tensor | None
    state: SequenceState
    deferred_checks: list[tuple[Tensor, OmnisinkError]] = field(default_factory=list)
    held: Tensor | None = None
    cache: Any = None

    def token_mask_on(self, device: torch.device) -> Tensor | None:
        """Return `token_mask` on the device of a layer, where layers are spread over several."""
        return None if self.token_mask is None else self.token_mask.to(device)


def begin_pass(
    cache: Any, attention_layer: int, batch: int, length: int, device: torch.device, owner: Hashable
) -> Pass:
    """Decide what the pass that is about to run is, before any layer has touched the cache.

    `cache` is what the layers are given; None where nothing is cached, so that every pass is a prefill. The length
    that it holds can be asked for at `attention_layer`. `owner` says whose state to look for on it. The pass has that
    state, or a fresh one for a prefill; its `token_mask` is not filled in yet. An `OmnisinkError` refuses a cache with
    tokens that the method never saw, or with another number of sequences than it saw.
    """
    new = SequenceState(batch, length=length, layer=attention_layer)
    if cache is None:
        return Pass(True, batch, length, device, None, new)
    # Dynamic caches know their length as a plain int; static ones keep it on the device, where looking would wait.
    held = cache.get_seq_length(attention_layer)
    counter = held if isinstance(held, Tensor) else None
    if continues(cache, attention_layer, owner):
        state = stored_state(cache, owner)
        assert state is not None
        if state.batch != batch:
            raise refusals.other_batch(batch, state.batch)
        state.check_length(held)
        return Pass(False, batch, length, device, None, state, held=counter, cache=cache)
    now = Pass(True, batch, length, device, None, new, held=counter, cache=cache)
    if counter is not None and torch.compiler.is_compiling():
        now.deferred_checks.append((counter > 0, refusals.warm_cache()))
    elif int(held) > 0:
        raise refusals.warm_cache()
    if not torch.compiler.is_compiling():
        new.places = Places(spare_tensors(cache, owner), bool(getattr(cache, "is_compileable", False)))
    store_state(cache, owner, new)
    return now


def continues(cache: Any, attention_layer: int, owner: Hashable) -> bool:
    """Tell whether a pass on `cache` continues sequences that `owner` has seen start."""
    if cache is None or stored_state(cache, owner) is None:
        return False
    held = cache.get_seq_length(attention_layer)
    return not (isinstance(held, int) and held == 0)
