"""Shares of sets of tokens in a call, for methods that weigh attention anew: exact, without maps, in every pass.

`shares_of` takes a call as a method is given it and returns what `omnisink.maths.sets` works on. It reads the mask of
any backend, padding on both sides, caches of a fixed size, windows that have moved on, soft caps and learned sinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import first_key, keys_in_use, visible_to
from omnisink.errors import OmnisinkError
from omnisink.maths import received
from omnisink.maths.decomposition import weights_of
from omnisink.maths.sets import SetShares, set_shares

#: Elements of shares that `blocks_of` lets a block of rows have.
_BLOCK = {"cpu": 1 << 22}
_BLOCK_ELSEWHERE = 1 << 26


def shares_of(
    call: AttentionCall,
    context: Context,
    marks: Tensor,
    rows: slice | Tensor | None = None,
    later: int | None = None,
) -> SetShares:
    """Divide rows of a layer's attention among sets of tokens.

    Parameters
    ----------
    call : AttentionCall
        The layer's call, in a prefill or in a later pass.
    context : Context
        The pass that is running.
    marks : Tensor
        Sets of tokens of the prompt, (B or 1, X, S) bool with padding counted, as `context.spans` has them; or
        (B or 1, K, X, S), sets of each key/value head. Over all keys of the call, (..., T), they are taken as given.
    rows : slice or Tensor, optional
        Queries of this pass: a slice of step 1, as ``slice(-1, None)``; or (B or 1, n) int64 where sequences want
        others, as the last real token of each. None is all; see `blocks_of` for long prompts.
    later : int, optional
        The set that tokens after the prompt belong to; None is no set.

    Returns
    -------
    SetShares
        (B, H, n, X, D') and (B, H, n, X) float32. A row of padding sees nothing, and has shares of zero.

    Raises
    ------
    OmnisinkError
        If the marks fit neither the prompt nor the keys of the call.
    UnsupportedModelError
        If the call's mask, or a bias in it, cannot be read.
    """
    chosen = rows if isinstance(rows, Tensor) else _rows_between(rows or slice(None), context.now.length)
    query = call.query[:, :, chosen] if isinstance(chosen, slice) else _gathered(call.query, chosen)
    keys = keys_in_use(call, context.now)
    return set_shares(
        query,
        call.key[:, :, :keys],
        call.value[:, :, :keys],
        marks_over_keys(call, context, marks, later),
        visible_to(call, context.now, chosen),
        scaling=call.scaling,
        softcap=call.softcap,
        learned_sink=call.learned_sink,
    )


def blocks_of(
    call: AttentionCall, context: Context, marks: Tensor, rows: slice | None = None, later: int | None = None
) -> Iterator[tuple[slice, SetShares]]:
    """Divide rows of a layer's attention as `shares_of` does, a block of them at a time.

    The shares of a row take as much memory as a head output for each set. A method that changes all rows of a long
    prompt writes the new outputs of a block before it asks for the next.

    Yields
    ------
    tuple of (slice, SetShares)
        The queries of the block, and their shares.
    """
    chosen = _rows_between(rows or slice(None), context.now.length)
    each = marks.shape[-2] * (call.value.shape[-1] + 1) * len(call.query) * call.query.shape[1]
    step = max(1, _BLOCK.get(call.query.device.type, _BLOCK_ELSEWHERE) // each)
    for start in range(chosen.start, chosen.stop, step):
        part = slice(start, min(start + step, chosen.stop))
        yield part, shares_of(call, context, marks, part, later)


def received_from(call: AttentionCall, context: Context, rows: Tensor | None = None) -> Tensor:
    """Sum the attention that each key receives, over all rows of the pass or over some.

    Parameters
    ----------
    call, context
        See `shares_of`.
    rows : Tensor, optional
        (B or 1, S) bool, the queries of this pass to count; None is every real one.

    Returns
    -------
    Tensor
        (B, H, T) float32; T is S in a prefill.

    Raises
    ------
    UnsupportedModelError
        See `shares_of`.
    """
    now = context.now
    if rows is None:
        rows = torch.ones(1, now.length, dtype=torch.bool) if now.token_mask is None else now.token_mask
    return received_from_sets(call, context, rows[:, None].expand(now.batch, -1, -1))[0][:, :, 0]


def received_from_sets(
    call: AttentionCall, context: Context, senders: Tensor, own: Sequence[bool] | None = None
) -> tuple[Tensor, Tensor]:
    """Sum the attention that each key receives from the rows of several sets.

    Parameters
    ----------
    call, context
        See `shares_of`.
    senders : Tensor
        (B, X, S) bool, sets of queries of this pass.
    own : sequence of bool, optional
        See `omnisink.maths.received.received_from`; for prompts only.

    Returns
    -------
    tuple of (Tensor, Tensor)
        (B, H, X, T) float32, what is received, and (B, X, T) float32, the rows of each set that see the key.

    Raises
    ------
    UnsupportedModelError
        See `shares_of`.
    """
    return received.received_from(
        call.query,
        call.key[:, :, : keys_in_use(call, context.now)],
        senders,
        visible_to(call, context.now, slice(0, context.now.length)),
        own=own,
        scaling=call.scaling,
        softcap=call.softcap,
        learned_sink=call.learned_sink,
    )


def last_rows(context: Context) -> Tensor:
    """Return the last real query of each sequence in the running pass, (B, 1) int64, as `shares_of` takes rows."""
    now = context.now
    if now.token_mask is None:
        return torch.full((now.batch, 1), now.length - 1, device=now.device)
    return now.length - 1 - now.token_mask.flip(1).int().argmax(dim=1, keepdim=True)


def attention_of_last(call: AttentionCall, context: Context) -> Tensor:
    """Return the attention of each sequence's last token over its tokens, (B, H, T) float32.

    T counts from the first token of the prompt, padding included. In a prefill it is the length of the prompt; later,
    the room of the cache may reach further, with zeros there.
    """
    now = context.now
    rows, keys = last_rows(context).to(call.query.device), keys_in_use(call, now)
    seen = weights_of(
        torch.take_along_dim(call.query, rows[:, None, :, None], dim=2),
        call.key[:, :, :keys],
        visible_to(call, now, rows),
        scaling=call.scaling,
        softcap=call.softcap,
        learned_sink=call.learned_sink,
    )[:, :, 0]
    return pad(seen, (first_key(call, now), keys - seen.shape[-1]))


def add_to_rows(output: Tensor, change: Tensor, rows: slice | Tensor | None = None) -> Tensor:
    """Add a change of some rows to the head outputs.

    Parameters
    ----------
    output : Tensor
        (B, S, H, D'), as `head_output` is given it; it is not changed.
    change : Tensor
        (B, H, n, D') float32, as `omnisink.maths.sets.difference` returns it for these rows.
    rows : slice or Tensor, optional
        The rows, as for `shares_of`; no row may be there twice.

    Returns
    -------
    Tensor
        (B, S, H, D') of the dtype of `output`; other rows are equal to the bit.
    """
    added = change.transpose(1, 2).to(output.dtype)
    if rows is None:
        return output + added
    made = output.clone()
    if isinstance(rows, slice):
        made[:, rows] += added
        return made
    index = rows.to(output.device)[:, :, None, None].expand(len(output), -1, *output.shape[2:])
    return made.scatter_add(1, index, added)


def marks_over_keys(call: AttentionCall, context: Context, marks: Tensor, later: int | None = None) -> Tensor:
    """Place marks of the prompt's tokens over the keys of a call, (..., X, S) to (..., X, T); see `shares_of`."""
    now, keys = context.now, keys_in_use(call, context.now)
    length, marks = now.state.length, marks.to(call.key.device)
    if marks.dtype != torch.bool or marks.dim() not in (3, 4) or marks.shape[-1] not in (length, keys):
        raise OmnisinkError(
            f"marks must be bool of shape (B, X, {length}), the tokens of the prompt, or (B, X, {keys}), the keys of "
            f"layer {call.layer}; got {marks.dtype} {tuple(marks.shape)}"
        )
    if now.is_prefill or marks.shape[-1] != length:
        return marks
    first = first_key(call, now)
    ours = marks[..., first : first + keys]
    after = ours.new_zeros(*ours.shape[:-1], keys - ours.shape[-1])
    if later is not None:
        after[..., later, :] = True
    return torch.cat([ours, after], dim=-1)


def _rows_between(rows: slice, length: int) -> slice:
    start, stop, step = rows.indices(length)
    if step != 1:
        raise ValueError(f"rows must follow one another, got {rows}")
    return slice(start, max(start, stop))


def _gathered(query: Tensor, rows: Tensor) -> Tensor:
    """Pick rows (B or 1, n) of queries (B, H, S, D)."""
    return torch.take_along_dim(query, rows.to(query.device)[:, None, :, None], dim=2)
