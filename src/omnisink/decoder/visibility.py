"""What any rows of a call see, in a prefill and in the passes after it, and which token each of its keys is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall
from omnisink.decoder.masks import visible_keys
from omnisink.decoder.passes import Pass
from omnisink.errors import OmnisinkError, UnsupportedModelError


def keys_in_use(call: AttentionCall, now: Pass) -> int:
    """Return how many of a call's keys may hold tokens: in a prefill, those of the prompt."""
    return now.length if now.is_prefill else call.key.shape[2]


def first_key(call: AttentionCall, now: Pass) -> int:
    """Return which token of its sequence the first key is, padding counted: 0 unless a window has moved on.

    A cache that has dropped tokens behind the first ones is refused with an `OmnisinkError`.
    """
    if any(getattr(layer, "has_gap", False) for layer in getattr(now.cache, "layers", ())):
        raise OmnisinkError(
            "the cache has dropped tokens between the first and the last (StreamingLLM(evict=True)), so that no other "
            "method can tell which token a key is: keep them, with evict=False"
        )
    return 0 if now.is_prefill or now.cache is None else max(0, _held(now) - call.key.shape[2])


def _held(now: Pass) -> int:
    """Return how many tokens the cache has seen, as its layers with a window know; others drop none.

    Layers of cross-attention are not asked: they hold as many keys as a picture has.
    """
    lengths = [0]
    for layer in getattr(now.cache, "layers", ()):
        held = layer.get_seq_length() if getattr(layer, "is_sliding", False) else 0
        if isinstance(held, int):
            lengths.append(held)
    return max(lengths)


def visible_to(call: AttentionCall, now: Pass, rows: slice | Tensor) -> Callable[[slice], Tensor]:
    """Tell what some rows of a call may see, a range of them at a time.

    Parameters
    ----------
    call : AttentionCall
        A call of any pass.
    now : Pass
        The pass.
    rows : slice or Tensor
        Which of the pass's queries: a slice with a start and a stop, or (B or 1, n) int64.

    Returns
    -------
    callable
        From a slice of the rows to (B or 1, 1, m, T') bool, True where a key may be seen, or the float that is added
        to its score. Keys from T' on cannot be seen. A padding token sees nothing.

    Raises
    ------
    UnsupportedModelError
        If the mask is of a kind that cannot be read.
    """
    _refuse_unread(call)
    token_mask = now.token_mask_on(call.query.device)
    if isinstance(rows, slice) and now.is_prefill:
        of_prompt, start, stop = visible_keys(call, token_mask, now.length), rows.start, rows.stop
        return lambda part: of_prompt(slice(start + part.start, min(start + part.stop, stop)))
    device = call.query.device
    index = torch.arange(rows.start, rows.stop, device=device)[None] if isinstance(rows, slice) else rows.to(device)
    seen_by = _rows_at(call, now, token_mask)

    def rows_of(part: slice) -> Tensor:
        chosen = index[:, part]
        seen = seen_by(chosen)
        if token_mask is None:
            return seen
        blind = ~torch.take_along_dim(token_mask, chosen, dim=1)[:, None, :, None]
        return seen & ~blind if seen.dtype == torch.bool else seen.masked_fill(blind, float("-inf"))

    return rows_of


def _refuse_unread(call: AttentionCall) -> None:
    """Refuse scores that are more than a product of queries and keys under one mask for all heads."""
    if call.options.get("position_bias") is not None:
        raise UnsupportedModelError(
            f"layer {call.layer} adds a bias of its own to every score: what sets of tokens give cannot be read there"
        )
    if isinstance(call.mask, Tensor) and call.mask.dim() == 4 and call.mask.shape[1] > 1:
        raise UnsupportedModelError(
            f"layer {call.layer} has another attention mask for each of {call.mask.shape[1]} heads: what sets of "
            "tokens give cannot be read there"
        )


def _rows_at(call: AttentionCall, now: Pass, token_mask: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return what tells from the places of rows (B or 1, n) what they see, (B or 1, 1, n, T)."""
    mask, device, keys = call.mask, call.query.device, keys_in_use(call, now)
    if isinstance(mask, Tensor) and mask.dim() == 4:
        every = mask[..., :keys]
        return lambda at: every if every.shape[2] == 1 else torch.take_along_dim(every, at[:, None, :, None], dim=2)
    key = torch.arange(keys, device=device)
    if hasattr(mask, "mask_mod"):
        sequence = torch.arange(now.batch, device=device)[:, None, None, None]

        def of_block(at: Tensor) -> Tensor:
            allowed: Tensor = mask.mask_mod(sequence, torch.zeros_like(sequence), at[:, None, :, None], key)
            return allowed.expand(now.batch, 1, at.shape[1], keys)

        return of_block
    if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 2):
        raise UnsupportedModelError(f"cannot tell what a query sees from a mask of type {type(mask).__name__}")
    if call.options.get("is_causal", True) is False and now.length > 1:
        raise UnsupportedModelError("the attention is not causal in this call, and no mask says what a query sees")
    real = token_mask if now.is_prefill else None if mask is None else mask[:, -keys:] != 0

    def of_triangle(at: Tensor) -> Tensor:
        place = at[:, None, :, None] + (keys - now.length)
        seen = key <= place
        if call.window is not None:
            seen = seen & (key > place - call.window)
        return seen if real is None else seen & real[:, None, None, :]

    return of_triangle
