"""Mask relaxation: let chosen tokens attend to the whole prompt, later tokens included."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnisink.maths.explicit_attention import explicit_attention


def choose_rows(chosen: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """List the positions of a mask (B, S) in tensors of fixed shape, whose R rows are the `capacity`, at most S.

    Where more are chosen, the earliest are listed.

    Returns
    -------
    index : Tensor
        (B, R) int64, distinct positions of each sequence, the chosen ones first and in order.
    valid : Tensor
        (B, R) bool, whether that position was chosen.
    """
    length = chosen.shape[1]
    rank = torch.arange(length, 0, -1, device=chosen.device)
    score, index = torch.where(chosen, rank, rank - length).topk(capacity, dim=1)
    return index, score > 0


def attend_to_all(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    token_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    learned_sink: Tensor | None = None,
) -> Tensor:
    """Attention of a few query rows over all real keys, without a causal mask.

    Parameters
    ----------
    query : Tensor
        The rows' queries after position encoding, (B, H, R, D).
    key, value : Tensor
        Prompt keys (B, K, S, D) and values (B, K, S, D'), before repetition; query head j reads head ``j // (H / K)``.
    token_mask : Tensor, optional
        (B, S) bool, False at padding. None: every key is real.
    scaling : float, optional
        The attention module's own softmax scale; None means ``1 / sqrt(D)``.
    softcap : float, optional
        Scores are squashed to ``softcap * tanh(scores / softcap)`` where the model does so (Gemma 2).
    learned_sink : Tensor, optional
        (H,) logits that take part in every softmax without a value (gpt-oss).

    Returns
    -------
    Tensor
        (B, R, H, D') in the dtype of `query`; the softmax is taken in float32.
    """
    batch, heads, rows, depth = query.shape
    groups = heads // key.shape[1]
    # The query heads of one key/value head become rows of it, so that keys and values are not repeated.
    packed = query.reshape(batch, key.shape[1], groups * rows, depth)
    mask = None if token_mask is None else token_mask[:, None, None, :]
    if softcap is None and learned_sink is None:
        out = F.scaled_dot_product_attention(packed, key, value, attn_mask=mask, scale=scaling)
    else:
        out = explicit_attention(packed, key, value, mask, scaling, softcap, learned_sink)
    return out.reshape(batch, heads, rows, value.shape[-1]).transpose(1, 2)


def replace_rows(output: Tensor, rows: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    """Put relaxed rows (B, R, H, D) in place of a layer's own head outputs (B, S, H, D).

    `index` and `valid`, (B, R), are of `choose_rows`; where `valid` is False the position keeps its output. The result
    is a new tensor where a gradient is asked for, otherwise `output` changed in place.
    """
    where = index[:, :, None, None].expand(-1, -1, *output.shape[2:])
    rows = torch.where(valid[:, :, None, None], rows.to(output.dtype), output.gather(1, where))
    if torch.is_grad_enabled() and output.requires_grad:
        return output.scatter(1, where, rows)
    return output.scatter_(1, where, rows)
