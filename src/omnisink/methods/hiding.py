"""Attention of a call without some of its keys, which no query sees: exact, in float32, without maps."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import keys_in_use, visible_to
from omnisink.maths.decomposition import KeyMask, attend
from omnisink.methods.sets import marks_over_keys


def attend_without(call: AttentionCall, context: Context, hidden: Tensor) -> Tensor:
    """Attend as if the mask had excluded some keys, so that what is left sums to one again.

    Parameters
    ----------
    call, context
        The layer's call, and the pass that is running.
    hidden : Tensor
        (B, 1 or H, S) bool over the tokens of the prompt, padding counted: hidden in all heads, or in each.

    Returns
    -------
    Tensor
        Head outputs (B, n, H, D') of the dtype of the values, n the rows of the pass. A row whose keys are all hidden
        is zero.
    """
    keys = keys_in_use(call, context.now)
    key, value = call.key[:, :, :keys], call.value[:, :, :keys]
    seen = visible_to(call, context.now, slice(0, context.now.length))
    gone = marks_over_keys(call, context, hidden)
    if gone.shape[1] == 1:
        read = attend(
            call.query,
            key,
            value,
            without_keys(seen, gone[:, 0]),
            scaling=call.scaling,
            softcap=call.softcap,
            learned_sink=call.learned_sink,
        )
    else:
        groups = call.query.shape[1] // key.shape[1]
        logits = call.learned_sink
        read = torch.cat(
            [
                attend(
                    call.query[:, head : head + 1],
                    key[:, head // groups : head // groups + 1],
                    value[:, head // groups : head // groups + 1],
                    without_keys(seen, gone[:, head]),
                    scaling=call.scaling,
                    softcap=call.softcap,
                    learned_sink=None if logits is None else logits[head : head + 1],
                )
                for head in range(call.query.shape[1])
            ],
            dim=1,
        )
    return read.transpose(1, 2).to(call.value.dtype)


def without_keys(mask: KeyMask, masked: Tensor) -> KeyMask:
    """Take keys (B, T) bool out of what queries see."""

    def rows_of_rest(rows: slice) -> Tensor:
        seen = mask(rows)
        gone = masked[:, None, None, : seen.shape[-1]]
        return seen & ~gone if seen.dtype == torch.bool else seen.masked_fill(gone, float("-inf"))

    return rows_of_rest
