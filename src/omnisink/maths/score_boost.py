"""Raise the attention scores of some keys by a share of their size: ``s + strength * |s|``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnisink.maths.decomposition import KeyMask, attend, combine, weights_of


@torch.no_grad()
def attend_boosted(
    query: Tensor, key: Tensor, value: Tensor, boosted: Tensor, mask: KeyMask, *, strength: float, **options: Any
) -> Tensor:
    """Attend with raised scores of some keys, without a gradient.

    The scores are those that the softmax takes, after scaling and soft cap. A negative score comes nearer to zero, so
    that `strength` up to 1 raises every score, and raises those of large absolute value most.

    Parameters
    ----------
    query, key, mask
        See `omnisink.maths.decomposition.attend`.
    value : Tensor
        (B, K, T, D'), before repetition.
    boosted : Tensor
        (B, T) bool, the keys.
    strength : float
        Share of its absolute value that is added to a score.
    **options
        `scaling`, `softcap` and `learned_sink` of `attend`.

    Returns
    -------
    Tensor
        Head outputs (B, H, S, D') float32.
    """
    marks = boosted[:, None, None]

    def raised(scores: Tensor) -> Tensor:
        return torch.where(marks[..., : scores.shape[-1]], scores + strength * scores.abs(), scores)

    if query.shape[2] == 1:  # All heads at once: of one row there are few weights.
        return combine(weights_of(query, key, mask, edit=raised, **options), value)
    return attend(query, key, value, mask, edit=raised, **options)
