"""Attention of a layer from which some of the prompt's tokens are hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import keys_in_use, visible_to
from omnisink.maths.decomposition import KeyMask, attend
from omnisink.methods.sets import marks_over_keys


def attend_without(call: AttentionCall, context: Context, hidden: Tensor) -> Tensor:
    """Attend as a layer does, with tokens that no query sees, not even their own.

    Parameters
    ----------
    call : AttentionCall
        The layer's call, in a prefill or in a later pass.
    context : Context
        The pass that is running.
    hidden : Tensor
        (B, S) bool over the tokens of the prompt, padding counted.

    Returns
    -------
    Tensor
        Head outputs (B, n, H, D') of the dtype of the queries, computed in float32, as a method's `attend` returns
        them; zero for a query that sees nothing.

    Raises
    ------
    UnsupportedModelError
        If the call's mask, or a bias in it, cannot be read.
    """
    now, keys = context.now, keys_in_use(call, context.now)
    masked = marks_over_keys(call, context, hidden[:, None])[:, 0]
    read = attend(
        call.query,
        call.key[:, :, :keys],
        call.value[:, :, :keys],
        without_keys(visible_to(call, now, slice(0, now.length)), masked),
        scaling=call.scaling,
        softcap=call.softcap,
        learned_sink=call.learned_sink,
    )
    return read.transpose(1, 2).to(call.query.dtype)


def without_keys(mask: KeyMask, masked: Tensor) -> KeyMask:
    """Take keys (B, T) out of what queries see."""

    def rows_of_rest(rows: slice) -> Tensor:
        seen = mask(rows)
        gone = masked[:, None, None, : seen.shape[-1]]
        return seen & ~gone if seen.dtype == torch.bool else seen.masked_fill(gone, float("-inf"))

    return rows_of_rest
