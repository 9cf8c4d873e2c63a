"""Attend anew with raised scores of some tokens, in any rows of a call: what PAI and ASD share."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import keys_in_use, visible_to
from omnisink.maths.score_boost import attend_boosted
from omnisink.methods.sets import marks_over_keys


def boosted_rows(
    call: AttentionCall, context: Context, boosted: Tensor, rows: slice | Tensor, strength: float
) -> Tensor:
    """Attend with scores ``s + strength * |s|`` of some tokens.

    Parameters
    ----------
    call, context
        The layer's call, and the pass that is running.
    boosted : Tensor
        (B, S) bool over the tokens of the prompt, padding counted.
    rows : slice or Tensor
        Queries of this pass: a slice with a start and a stop, or (B, n) int64.
    strength : float
        See `omnisink.maths.score_boost.attend_boosted`.

    Returns
    -------
    Tensor
        Head outputs (B, n, H, D') float32.
    """
    keys = keys_in_use(call, context.now)
    if isinstance(rows, slice):
        query = call.query[:, :, rows]
    else:
        query = torch.take_along_dim(call.query, rows.to(call.query.device)[:, None, :, None], dim=2)
    output = attend_boosted(
        query,
        call.key[:, :, :keys],
        call.value[:, :, :keys],
        marks_over_keys(call, context, boosted[:, None])[:, 0],
        visible_to(call, context.now, rows),
        strength=strength,
        scaling=call.scaling,
        softcap=call.softcap,
        learned_sink=call.learned_sink,
    )
    return output.transpose(1, 2)
