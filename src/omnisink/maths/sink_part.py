"""Split head outputs into what the sinks give and what all other tokens give: ``o = o_sink + o_rest``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnisink.maths.decomposition import KeyMask, attend
from omnisink.maths.host import is_eager_cpu
from omnisink.maths.relaxation import choose_rows


def split_sink_part(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor,
    sets: Tensor,
    mask: KeyMask,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Split the sinks' part off every head output, and measure attention to sets of tokens, in one pass.

    Where the host may see that the sinks are few, the weight of each is read out and multiplied by its value: a column
    a sink in place of one for each channel of the value, which is most of the work.

    Parameters
    ----------
    query, key, mask
        See `omnisink.maths.decomposition.attend`.
    value : Tensor
        (B, K, T, D'), before repetition.
    sinks : Tensor
        (B, T) bool.
    sets : Tensor
        (B, n, T) bool.
    **options
        Further arguments of `attend`.

    Returns
    -------
    from_sinks : Tensor
        (B, H, S, D') float32, ``o_sink``.
    mass : Tensor
        (B, H, S, n) float32.
    """
    marks = sets.transpose(1, 2)[:, None].float()
    most = int(sinks.sum(dim=1).max()) if is_eager_cpu(sinks) else value.shape[-1]
    if most >= value.shape[-1] // 2:
        own = value.float().masked_fill(~sinks[:, None, :, None], 0.0)
        columns = torch.cat([own, marks.expand(-1, value.shape[1], -1, -1)], dim=-1)
        return tuple(attend(query, key, columns, mask, **options).split([value.shape[-1], sets.shape[1]], -1))
    index, valid = choose_rows(sinks, max(1, most))
    single = torch.zeros(*sinks.shape, index.shape[1], device=sinks.device)
    single.scatter_(1, index[:, None], valid[:, None].float())
    columns = torch.cat([single[:, None], marks], dim=-1)
    weights, mass = attend(query, key, columns, mask, **options).split([index.shape[1], sets.shape[1]], dim=-1)
    theirs = value.float().gather(2, index[:, None, :, None].expand(-1, value.shape[1], -1, value.shape[-1]))
    packed = weights.reshape(len(query), value.shape[1], -1, index.shape[1])
    return torch.matmul(packed, theirs).reshape(*query.shape[:3], -1), mass


def split_columns(value: Tensor, sinks: Tensor) -> Tensor:
    """Lay the values of the sinks and those of all other tokens side by side.

    Parameters
    ----------
    value : Tensor
        (B, K, S, D').
    sinks : Tensor
        (B, S) bool.

    Returns
    -------
    Tensor
        (B, K, S, 2 D') float32: read out, the first half is ``o_sink`` and the second ``o_rest``.
    """
    wide = value.float()
    mark = sinks[:, None, :, None]
    return torch.cat([wide.masked_fill(~mark, 0.0), wide.masked_fill(mark, 0.0)], dim=-1)
