"""Attention of one decode step on the CPU, one key/value head at a time, on views of the cache.

Nothing of the cache is copied: a head that is left out is not read, and neither are keys outside of the range that is
seen, as the empty end of a static cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

#: Keys from which on the product with the values is cut into pieces, on which the cores work side by side.
_LONG = 4096
_PIECE = 256


def attend_active(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    routed: Sequence[Sequence[bool]],
    ranges: Sequence[tuple[int, int]],
    mask: Tensor | None,
    *,
    scale: float,
    softcap: float | None,
    surrogate_value: Tensor | None,
) -> Tensor | None:
    """Attend with the key/value heads that are not routed.

    Parameters
    ----------
    query : Tensor
        (B, H, 1, D).
    key, value : Tensor
        (B, K, T, D) and (B, K, T, D').
    routed : sequence of sequences of bool
        (B, K) which heads are routed.
    ranges : sequence of (int, int)
        For each sequence the first key that is seen, and the one after the last.
    mask : Tensor or None
        (B, T) bool, False at keys that are not seen, or float, added to the scores.
    scale : float
        Of the scores.
    softcap : float or None
        Scores become ``softcap * tanh(scores / softcap)``.
    surrogate_value : Tensor or None
        (B, K, D') outputs of routed heads; None is zero.

    Returns
    -------
    Tensor or None
        Head outputs (B, H, 1, D'); None where no head is routed.
    """
    if not any(map(any, routed)):
        return None
    batch, kv_heads = key.shape[:2]
    grouped = query.reshape(batch, kv_heads, -1, query.shape[-1])
    shape = (batch, kv_heads, grouped.shape[2], value.shape[-1])
    if surrogate_value is None:
        output = value.new_zeros(shape)
    else:
        output = surrogate_value.to(value.dtype)[:, :, None].expand(shape).clone()
    for b, (heads, (start, stop)) in enumerate(zip(routed, ranges, strict=True)):
        row = None if mask is None else mask[b, start:stop]
        for g, is_routed in enumerate(heads):
            if not is_routed:
                output[b, g] = attend_head(
                    grouped[b, g], key[b, g, start:stop], value[b, g, start:stop], row, scale, softcap
                )
    return output.reshape(batch, -1, 1, shape[-1])


def attend_head(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """Attend with the queries (G, D) of one key/value head to its keys (T, D) and values (T, D'), to (G, D').

    `mask`, (T,), is bool, False at keys that are not seen, or float, added to the scores; None is all of them.
    """
    if query.dtype != torch.float32 and softcap is None:
        row = None if mask is None else mask[None, None, None]
        return scaled_dot_product_attention(
            query[None, None], key[None, None], value[None, None], attn_mask=row, scale=scale
        )[0, 0]
    scores = torch.mm(query.float() * scale, key.float().t())
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask.float()
    return _product(scores.softmax(dim=-1), value.float()).to(value.dtype)


def _product(weights: Tensor, value: Tensor) -> Tensor:
    """Multiply (G, T) by (T, D'). It has few rows and columns, so that a single product is done by one core."""
    keys = len(value)
    if keys < _LONG:
        return torch.mm(weights, value)
    pieces, whole = keys // _PIECE, keys - keys % _PIECE
    parts = torch.bmm(
        weights[:, :whole].unflatten(1, (pieces, _PIECE)).transpose(0, 1), value[:whole].unflatten(0, (pieces, _PIECE))
    )
    found = parts.sum(dim=0)
    return found if whole == keys else found.addmm_(weights[:, whole:], value[whole:])
