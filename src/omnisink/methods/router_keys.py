"""Which token is the anchor of a router, which keys a decode step sees, and at which layers it cannot act."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall
from omnisink.decoder.masks import CLOSED
from omnisink.decoder.passes import Pass
from omnisink.maths.host import is_eager_cpu
from omnisink.maths.routing import Visible
from omnisink.models.context import context_length


def reason_to_leave(call: AttentionCall, anatomy: Anatomy) -> str | None:
    """Say why a layer cannot be routed; None where it can be."""
    limit = context_length(anatomy.model.config)
    if call.window is not None and (limit is None or call.window < limit):
        return f"not routed: its window of {call.window} tokens drops the first token"
    if call.learned_sink is not None:
        return "not routed: its heads have learned sink logits, so that none of its tokens is the sink"
    if call.options.get("position_bias") is not None:
        return "not routed: a bias by position is added to its scores, which a cosine does not see"
    module = anatomy.attention[call.layer].module
    if call.key.shape[1] == 1 < call.query.shape[1] and hasattr(module, "kv_lora_rank"):
        return "not routed: all its heads share one latent key, and would be routed together or not at all"
    return None


def anchor_places(marked: Tensor, magnitude: Tensor, before: Tensor) -> Tensor:
    """Return the position of the strongest sink of each sequence, (B,) int64.

    Parameters
    ----------
    marked : Tensor
        (B, S) bool, the sinks of a layer.
    magnitude : Tensor
        (B, S) the largest activation of every token.
    before : Tensor
        (B,) the positions that stay where a sequence has no sink.
    """
    strongest = torch.where(marked, magnitude, torch.full_like(magnitude, -1.0)).argmax(dim=1)
    return torch.where(marked.any(dim=1), strongest, before)


def value_ratio(values: Tensor, anchor: Tensor, token_mask: Tensor | None) -> Tensor:
    """Return how long the anchor's value is, as a multiple of the median length of all values, (B, K) float32.

    Parameters
    ----------
    values : Tensor
        (B, K, S, D') of the prompt.
    anchor : Tensor
        (B, K, D') value of each sequence's anchor.
    token_mask : Tensor or None
        (B, S) bool, False at padding.
    """
    lengths = torch.linalg.vector_norm(values, dim=-1, dtype=torch.float32)
    if token_mask is not None:
        lengths = lengths.masked_fill(~token_mask[:, None], float("nan"))
    return torch.linalg.vector_norm(anchor.float(), dim=-1) / lengths.nanmedian(dim=-1).values


def seen_keys(call: AttentionCall, now: Pass) -> Visible | None:
    """Tell which keys a decode step sees; None where that differs between heads.

    Masks (B or 1, 1, 1, T) and (B, T) say it themselves. With one of another kind it is the real tokens of the prompt
    and everything after it; without one, everything. A static cache is seen as far as it is filled.
    """
    given, keys, device = call.mask, call.key.shape[2], call.query.device
    batch = call.query.shape[0]
    row: Tensor | None = None
    if isinstance(given, Tensor) and given.dim() == 4:
        if given.shape[1] != 1:
            return None
        row = given[:, 0, -1, :keys].expand(batch, -1)
    elif isinstance(given, Tensor) and given.dim() == 2:
        row = given[:, :keys] != 0
    elif given is not None and (mask := now.state.tensors.get("token mask")) is not None:
        row = torch.nn.functional.pad(mask.to(device), (0, keys - mask.shape[1]), value=True)
    if row is not None and is_eager_cpu(row):
        return _run_of(row, keys, now)
    extent = now.state.tensors["extent"].to(device)
    held = keys if now.held is None else now.held.to(device)
    stops = torch.zeros(batch, dtype=torch.long, device=device) + held
    starts = torch.zeros_like(stops) if row is None else extent[:, 0].long()
    # The mask of a static cache closes what is not filled, and nothing else where no prompt is padded.
    plain = now.held is not None and "token mask" not in now.state.tensors
    return Visible(starts, stops, None if plain else row)


def _run_of(row: Tensor, keys: int, now: Pass) -> Visible:
    """Find the range that a mask (B, T) leaves open, and forget the mask where all of the range is open."""
    is_open = row if row.dtype == torch.bool else row > CLOSED
    if now.held is not None:
        is_open = is_open & (torch.arange(keys) < now.held)
    counts, starts = is_open.sum(dim=1), is_open.int().argmax(dim=1)
    stops = keys - is_open.flip(1).int().argmax(dim=1)
    one_run = bool((stops - starts == counts).all())
    is_plain = row.dtype == torch.bool or not bool((row * is_open).any())
    if one_run and is_plain:
        return Visible(starts, stops)
    closed = is_open if row.dtype == torch.bool else row.masked_fill(~is_open, float("-inf"))
    return Visible(starts, stops, closed)
