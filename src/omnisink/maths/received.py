"""How much attention each token receives from the tokens of a set, without attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omnisink.maths.decomposition import KeyMask, visible, weight_blocks

#: Queries whose mask is held at a time where nothing but the mask is asked for.
_ROWS = 256


@torch.no_grad()
def received_from(
    query: Tensor, key: Tensor, senders: Tensor, mask: KeyMask, *, own: Sequence[bool] | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Sum up the attention that each token receives from the queries of some sets.

    Parameters
    ----------
    query, key, mask
        See `omnisink.maths.decomposition.attend`; the queries are those of the first S keys.
    senders : Tensor
        (B, X, S) bool, sets of queries.
    own : sequence of bool, optional
        For each set, whether what a token gives itself counts. None: it does.
    **options
        `scaling`, `softcap` and `learned_sink` of `attend`.

    Returns
    -------
    received : Tensor
        (B, H, X, T) float32.
    count : Tensor
        (B, X, T) float32, the queries of each set that see the token.
    """
    batch, heads, length = query.shape[:3]
    sets, keys = senders.shape[1], key.shape[2]
    chosen = senders.to(device=query.device, dtype=torch.float32)
    others = [x for x, counts in enumerate(own or ()) if not counts]  # sets whose tokens do not count for themselves
    received = chosen.new_zeros(batch, heads, sets, keys)
    for _, members, rows, weights in weight_blocks(query, key, mask, **options):
        received[:, members, :, : weights.shape[-1]] += torch.einsum("bxn,bgnt->bgxt", chosen[..., rows], weights)
        itself = weights.diagonal(offset=rows.start, dim1=2, dim2=3)
        for x in others:
            received[:, members, x, rows] -= chosen[:, None, x, rows] * itself
    count = chosen.new_zeros(batch, sets, keys)
    for start in range(0, length, _ROWS):
        rows = slice(start, min(start + _ROWS, length))
        seen = visible(mask(rows).to(query.device))[:, 0, :, :keys].float()
        count[..., : seen.shape[-1]] += chosen[..., rows] @ seen
        for x in others:
            count[:, x, rows] -= chosen[:, x, rows] * seen.diagonal(offset=start, dim1=1, dim2=2)
    return received, count
