"""What a set of keys of its own gives each query head, without attention maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnisink.maths.decomposition import KeyMask, combine, weight_blocks, weights_of


@torch.no_grad()
def head_shares(
    query: Tensor, key: Tensor, value: Tensor, marks: Tensor, mask: KeyMask, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Split off the part of each head output that comes from the head's own set of keys.

    Parameters
    ----------
    query, key, mask
        See `omnisink.maths.decomposition.attend`.
    value : Tensor
        (B, K, T, D'), before repetition.
    marks : Tensor
        (B, H, T) bool, the set of each query head.
    **options
        `scaling`, `softcap` and `learned_sink` of `attend`.

    Returns
    -------
    output : Tensor
        (B, H, S, D') float32, the set's part of the head output.
    mass : Tensor
        (B, H, S) float32, the attention to the set.
    others : Tensor
        (B, H, S) float32, that to all other keys, summed up by itself: exactly zero where there is none.
    """
    if query.shape[2] == 1:  # All heads at once: of one row there are few weights.
        weights = weights_of(query, key, mask, **options)
        chosen = marks[:, :, None, : weights.shape[-1]]
        kept = weights.masked_fill(~chosen, 0.0)
        return combine(kept, value), kept.sum(dim=-1), weights.masked_fill(chosen, 0.0).sum(dim=-1)
    output = query.new_zeros((*query.shape[:3], value.shape[-1]), dtype=torch.float32)
    mass, others = output.new_zeros(query.shape[:3]), output.new_zeros(query.shape[:3])
    for j, members, rows, weights in weight_blocks(query, key, mask, **options):
        width = weights.shape[-1]
        chosen = marks[:, members, None, :width]
        others[:, members, rows] = weights.masked_fill(chosen, 0.0).sum(dim=-1)
        weights.masked_fill_(~chosen, 0.0)
        mass[:, members, rows] = weights.sum(dim=-1)
        output[:, members, rows] = torch.matmul(weights, value[:, None, j, :width].float())
    return output, mass, others
