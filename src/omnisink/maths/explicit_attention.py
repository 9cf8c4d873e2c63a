"""Attention with a soft cap or with learned logits, spelled out: fused attention has no place for them."""

from __future__ import annotations

import torch
from torch import Tensor


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    learned_sink: Tensor | None,
) -> Tensor:
    """Spell the softmax out where fused attention has no place for a cap or for learned logits."""
    scores = torch.matmul(query, key.transpose(2, 3)).float() * (
        query.shape[-1] ** -0.5 if scaling is None else scaling
    )
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if learned_sink is not None:
        kv_heads, packed_rows = query.shape[1], query.shape[2]
        logits = (
            learned_sink.float().reshape(kv_heads, -1, 1).expand(-1, -1, packed_rows * kv_heads // len(learned_sink))
        )
        scores = torch.cat(
            [scores, logits.reshape(1, kv_heads, packed_rows, 1).expand(len(scores), -1, -1, -1)], dim=-1
        )
    weights = scores.softmax(dim=-1)[..., : key.shape[2]]
    return torch.matmul(weights.to(value.dtype), value)
