"""Packed tokens: which token of a pass belongs to which sequence.

Kernels see a pass as one row of tokens. A batch with padding on either side is one case: token ``b * S + s``; a
serving engine's step, with prompts and generated tokens one after another, is another, with ``B = 1``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The sequences of a pass.

    Attributes
    ----------
    length : int
        Tokens to a row of the tensors (B, S, ...): token t stands in row ``t // length``.
    tokens : int
        All of them, ``B * S``.
    longest : int
        Tokens at most between the first and the last of a sequence.
    sequence : Tensor
        (tokens,) int32, the sequence of every token; -1 at padding.
    first, stop : Tensor
        (n,) int32, the range in which all tokens of a sequence stand.
    sizes : Tensor
        (n,) int32, how many tokens it has.
    prepared : dict
        Launches that layers have in common; see `omnisink.kernels.prepared.launch_again`.
    """

    length: int
    tokens: int
    longest: int
    sequence: Tensor
    first: Tensor
    stop: Tensor
    sizes: Tensor
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def sequences(self) -> int:
        """How many there are."""
        return self.first.shape[0]

    @classmethod
    def of_batch(cls, batch: int, length: int, token_mask: Tensor | None, device: torch.device) -> Layout:
        """Describe a batch (B, S); `token_mask` is (B, S) bool, False at padding, None without padding."""
        bounds = torch.arange(0, (batch + 1) * length, length, device=device, dtype=torch.int32)
        if batch == 1:
            sequence = torch.zeros(1, length, device=device, dtype=torch.int32)
        else:
            sequence = torch.arange(batch, device=device, dtype=torch.int32)[:, None].expand(batch, length)
        if token_mask is None:
            sizes = torch.full((batch,), length, device=device, dtype=torch.int32)
        else:
            sequence = sequence.masked_fill(~token_mask, -1)
            sizes = token_mask.sum(dim=1, dtype=torch.int32)
        packed = sequence.reshape(-1).contiguous()
        return cls(length, batch * length, length, packed, bounds[:-1], bounds[1:], sizes)
