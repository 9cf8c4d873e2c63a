"""What attention reads from which tokens: exact, in float32, and never with a whole S x S map.

Attention is linear in the values. So whatever the values are replaced by, the same weights read it out: the values of
the sinks and those of the rest split every head output exactly, ``o = o_sink + o_rest``; columns of ones and
zeros that mark a set of tokens give the attention mass on that set. One pass over blocks of queries answers all of it,
and a block of weights is forgotten before the next is made: memory is O(S).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnisink.maths.host import is_eager_cpu

#: Weights held at a time. On the CPU a block then stays near the caches.
_BLOCK = {"cpu": 1 << 21}
_BLOCK_ELSEWHERE = 1 << 26
#: Queries whose mask is held at a time where nothing but the mask is asked for.
_ROWS = 256
#: Columns up to which a product with the weights is faster column by column.
_FEW_COLUMNS = 12

#: From scores (B, G, n, T') after scaling and soft cap, before the mask, to the scores that the softmax gets; it may
#: change them in place.
ScoreEdit = Callable[[Tensor], Tensor]
#: From a range of queries to what they may see: bool, True where visible, or float, added to the scores;
#: (B or 1, 1, n, T'). Keys from T' on are not visible.
KeyMask = Callable[[slice], Tensor]


@torch.no_grad()
def attend(
    query: Tensor,
    key: Tensor,
    columns: Tensor,
    mask: KeyMask,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    learned_sink: Tensor | None = None,
    received: Tensor | None = None,
    edit: ScoreEdit | None = None,
) -> Tensor:
    """Read any columns out with a layer's attention weights.

    Parameters
    ----------
    query : Tensor
        After position encoding, (B, H, S, D), any floating dtype.
    key : Tensor
        (B, K, T, D), before repetition; query head j reads head ``j // (H / K)``.
    columns : Tensor
        (B, K or 1, T, C): values, masked values, or marks of sets of tokens. A head's result is linear in them.
    mask : KeyMask
        What every query may see.
    scaling : float, optional
        The module's softmax scale; None is ``1 / sqrt(D)``.
    softcap : float, optional
        Scores become ``softcap * tanh(scores / softcap)``.
    learned_sink : Tensor, optional
        (H,) logits that take part in every softmax without a value.
    received : Tensor, optional
        (B, H, T) float32, to which the weights that each key receives are added, summed over the queries.
    edit : ScoreEdit, optional
        A change of the scores before the softmax.

    Returns
    -------
    Tensor
        (B, H, S, C) float32, without a gradient; zero for a query that sees nothing.
    """
    (batch, heads, length, _), kv_heads = query.shape, key.shape[1]
    out = query.new_empty((batch, heads, length, columns.shape[-1]), dtype=torch.float32)
    # A product with few columns is a third as long where each of them lies in one piece.
    laid = columns.mT.contiguous().mT if columns.shape[-1] <= _FEW_COLUMNS else columns
    spread = laid.expand(-1, kv_heads, -1, -1)
    options: dict[str, Any] = {"scaling": scaling, "softcap": softcap, "learned_sink": learned_sink, "edit": edit}
    for j, members, rows, weights in weight_blocks(query, key, mask, **options):
        groups, width = weights.shape[1], weights.shape[-1]
        if received is not None:
            received[:, members, :width] += weights.sum(dim=2)
        read = torch.matmul(weights.flatten(1, 2), spread[:, j, :width].float())
        out[:, members, rows] = read.unflatten(1, (groups, -1))
    return out


def weight_blocks(
    query: Tensor,
    key: Tensor,
    mask: KeyMask,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    learned_sink: Tensor | None = None,
    edit: ScoreEdit | None = None,
) -> Iterator[tuple[int, slice, slice, Tensor]]:
    """Make the attention weights of one layer, a block at a time; see `attend` for the parameters.

    Yields
    ------
    int, slice, slice, Tensor
        A key/value head, its query heads, a range of queries, and their weights, (B, G, n, T') float32: over the
        first keys, as far as the queries see. The next block is written over them.
    """
    batch, heads, length, depth = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    groups = heads // kv_heads
    scale = depth**-0.5 if scaling is None else scaling
    step = max(1, _BLOCK.get(query.device.type, _BLOCK_ELSEWHERE) // max(1, batch * groups * keys))
    # One buffer for every block of scores: asking for fresh pages each time costs as much as the softmax.
    buffer = query.new_empty(batch * groups * min(step, length) * keys, dtype=torch.float32)
    for start in range(0, length, step):
        rows = slice(start, min(start + step, length))
        veil = _BlockMask.of(mask(rows).to(query.device)[..., :keys])
        for j in range(kv_heads):  # One key/value head at a time, whose keys and columns then stay in the cache.
            members = slice(j * groups, (j + 1) * groups)
            packed = (query[:, members, rows].float() * scale).flatten(1, 2)
            shape = (batch, packed.shape[1], veil.width)
            scores = buffer[: shape[0] * shape[1] * shape[2]].view(shape)
            torch.bmm(packed, key[:, j, : veil.width].float().transpose(1, 2), out=scores)
            logits = None if learned_sink is None else learned_sink[members]
            yield j, members, rows, _softmax(scores.unflatten(1, (groups, -1)), veil, softcap, logits, edit)


@torch.no_grad()
def weights_of(
    query: Tensor,
    key: Tensor,
    mask: KeyMask,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    learned_sink: Tensor | None = None,
    edit: ScoreEdit | None = None,
) -> Tensor:
    """Return the attention weights of a few rows, all heads at a time; see `attend` for the arguments.

    Returns
    -------
    Tensor
        (B, H, S, T') float32; zero for a query that sees nothing. Keys from T' on are not visible.
    """
    kv_heads, heads = key.shape[1], query.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    veil = _BlockMask.of(mask(slice(0, query.shape[2])).to(query.device)[..., : key.shape[2]])
    packed = (query.float() * scale).unflatten(1, (kv_heads, -1)).flatten(2, 3)  # (B, K, G S, D)
    scores = torch.matmul(packed, key[:, :, : veil.width].float().mT)
    return _softmax(scores.unflatten(2, (heads // kv_heads, -1)).flatten(1, 2), veil, softcap, learned_sink, edit)


def combine(weights: Tensor, value: Tensor) -> Tensor:
    """Return what weights (B, H, S, T') read out of values (B, K, T, C) before repetition, (B, H, S, C) float32."""
    kv_heads, width = value.shape[1], weights.shape[-1]
    packed = weights.unflatten(1, (kv_heads, -1)).flatten(2, 3)
    return torch.matmul(packed, value[:, :, :width].float()).reshape(*weights.shape[:3], -1)


@dataclass(frozen=True)
class _BlockMask:
    """A block of a mask, prepared once for all heads.

    Attributes
    ----------
    width : int
        Keys T' that it speaks of.
    first : int
        All queries of the block see all keys before this one, so that scores are not masked there.
    hidden : Tensor or None
        (B or 1, 1, n, T' - first) bool, True where a key may not be seen; None where a float is added instead.
    added : Tensor or None
        That float, of the same shape.
    blind : Tensor or None
        (B or 1, 1, n, 1) bool, queries that see nothing; None where the host knows that there are none.
    """

    width: int
    first: int
    hidden: Tensor | None
    added: Tensor | None
    blind: Tensor | None

    @classmethod
    def of(cls, seen: Tensor) -> _BlockMask:
        may, width, first = visible(seen), seen.shape[-1], 0
        blind: Tensor | None = ~may.any(dim=-1, keepdim=True)
        if is_eager_cpu(seen):
            # Under a causal mask nearly all of a late block is seen: there is no need to touch it.
            clear = may.all(dim=2).flatten(0, 1).all(dim=0)
            first = int(clear.logical_not().int().argmax()) if not bool(clear.all()) else width
            blind = blind if blind is not None and bool(blind.any()) else None
        if seen.dtype == torch.bool:
            return cls(width, first, ~seen[..., first:], None, blind)
        return cls(width, 0, None, seen, blind)


def _softmax(
    scores: Tensor, veil: _BlockMask, softcap: float | None, learned_sink: Tensor | None, edit: ScoreEdit | None
) -> Tensor:
    """Turn scores (B, G, n, T) into weights, in place where that is possible."""
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    if edit is not None:
        scores = edit(scores)
    if veil.hidden is not None and veil.first < veil.width:
        scores[..., veil.first :].masked_fill_(veil.hidden, float("-inf"))
    if veil.added is not None:
        scores.add_(veil.added)
    if learned_sink is not None:
        logits = learned_sink.float().reshape(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)
        scores = torch.cat([scores, logits], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        torch.softmax(scores, dim=-1, out=scores)
    # Without any visible key, as a padding token has, a row is 0 / 0, or even where the mask is finite.
    return scores if veil.blind is None else scores.masked_fill_(veil.blind, 0.0)


def visible(seen: Tensor) -> Tensor:
    """Turn a mask that is added to scores into one that is True where a key may be seen.

    Parameters
    ----------
    seen : Tensor
        Tensor of any shape; bool or float.

    Returns
    -------
    Tensor
        Bool, of the same shape.
    """
    return seen if seen.dtype == torch.bool else seen > torch.finfo(seen.dtype).min / 2


def num_visible_queries(mask: KeyMask, length: int) -> Tensor:
    """Count the queries that may see each key.

    Parameters
    ----------
    mask : KeyMask
        What every query may see.
    length : int
        Queries S, and keys.

    Returns
    -------
    Tensor
        (B or 1, S) int64.
    """
    count: Tensor | None = None
    for start in range(0, length, _ROWS):
        seen = visible(mask(slice(start, min(start + _ROWS, length))))[:, 0]
        part = torch.nn.functional.pad(seen.sum(dim=1), (0, length - seen.shape[-1]))
        count = part if count is None else count + part
    assert count is not None
    return count


def attention_from(
    query: Tensor, key: Tensor, position: Tensor, mask: Tensor | None = None, *, scaling: float | None = None
) -> Tensor:
    """Where one query of each sequence looks when it may see every real key.

    Parameters
    ----------
    query : Tensor
        (B, H, S, D).
    key : Tensor
        (B, K, S, D).
    position : Tensor
        (B,) int64, which query.
    mask : Tensor, optional
        (B, S) bool, the keys that may be seen; None is all.
    scaling : float, optional
        The module's softmax scale; None is ``1 / sqrt(D)``.

    Returns
    -------
    Tensor
        (B, H, S) float32 weights that sum to one; learned sinks and soft caps are left out.
    """
    batch, heads, _, depth = query.shape
    row = query.gather(2, position[:, None, None, None].expand(-1, heads, 1, depth)).float()
    packed = row.reshape(batch, key.shape[1], heads // key.shape[1], depth)
    scores = torch.matmul(packed, key.float().transpose(2, 3)) * (depth**-0.5 if scaling is None else scaling)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    return scores.softmax(dim=-1).flatten(1, 2)
