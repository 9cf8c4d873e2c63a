"""A decoding step of SinkRouter: groups whose queries point at the anchor leave before a key or value is read.

Two launches. `route` has one program for each sequence, key/value group and part of the keys (split-K). Every program
takes the mean cosine of the group's queries with the anchor anew: that costs a few kilobytes, and no launch, no look
from the host, and no program that waits. It writes the attention over its part of the keys, or, for a routed group,
leaves; the program of the first part writes the group's surrogate, its score, and the decision. `merge` puts the parts
together, in order, so that the same step always gives the same bits.

The parts could be put together in the first launch, by the program that is the last to count itself as done. That
needs counters that are zero before each step: either a launch to clear them, or memory that outlives the step, which
is what keeps compiled steps from CUDA graphs. The second launch takes some 2 us in a graph, and needs neither.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.prepared import Arguments, PreparedLaunch, launch_again
from omnisink.kernels.rotation import tanh
from omnisink.kernels.sizes import power_of_two
from omnisink.kernels.splits import LOWEST, merging, number_of_splits

#: Stands for the product of two lengths where one is zero; as in `omnisink.maths.routing`.
_TINY = tl.constexpr(1e-30)

#: Integers that the length of the cache decides, and tensors that may begin anywhere: one compiled kernel is for all.
_ANY = ["thresholds", "mask", "starts", "stops", "score", "routed", "tops", "totals", "length", "stride_mb"]
_ANY += [f"stride_{of}{dim}" for of in "kv" for dim in "bh"]


@triton.jit
def product(a, b, total, WIDEN: tl.constexpr):
    """Add the product of two matrices to float32 sums."""
    if (
        WIDEN
    ):  # Triton's interpreter would take the bits of bfloat16 for integers; the same numbers as float32 are right.
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


#: Launches of the layers and steps before; and how many are kept, as a cache that grows has ever another length.
_PREPARED: dict[Any, list[PreparedLaunch]] = {}
_MOST_PREPARED = 1024


# fmt: off
@triton.jit(do_not_specialize=_ANY)
def route(
    query, key, value, anchor, surrogate, thresholds, mask, starts, stops, output, score, routed, parts, tops, totals,
    length, threshold, scale, cap, groups, depth, width, stride_qb, stride_qh, stride_kb, stride_kh, stride_ks,
    stride_vb, stride_vh, stride_vs, stride_ab, stride_ah, stride_sb, stride_sh, stride_mb, stride_ms,
    ALIGNED: tl.constexpr, HAS_CAP: tl.constexpr, HAS_SURROGATE: tl.constexpr, HAS_THRESHOLDS: tl.constexpr,
    HAS_RANGES: tl.constexpr, MASK: tl.constexpr, SINGLE: tl.constexpr, WIDEN: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr,
):
    split = tl.program_id(0)
    k = tl.program_id(1)
    b = tl.program_id(2)
    splits = tl.num_programs(0)
    group = b.to(tl.int64) * tl.num_programs(1) + k
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, DEPTH)
    column = tl.arange(0, WIDTH)
    # The queries are the columns of all matrices: sixteen of them are enough for the tensor cores.
    place = b.to(tl.int64) * stride_qb + (k * groups + row)[None, :] * stride_qh + channel[:, None]
    q = tl.load(query + place, mask=(row < groups)[None, :] & (channel < depth)[:, None], other=0.0)
    place = b.to(tl.int64) * stride_ab + k.to(tl.int64) * stride_ah + channel
    a = tl.load(anchor + place, mask=channel < depth, other=0.0).to(tl.float32)
    wide = q.to(tl.float32)
    size = tl.sqrt(tl.sum(wide * wide, axis=0)) * tl.sqrt(tl.sum(a * a, axis=0))
    cosine = tl.sum(wide * a[:, None], axis=0) / tl.maximum(size, _TINY)
    mean = tl.sum(cosine, axis=0) / groups
    limit = threshold
    if HAS_THRESHOLDS:
        limit = tl.load(thresholds + b)
    leaves = (mean > limit) & (limit < 1.0)  # Rounding may lift the cosine of parallel vectors above one.
    if split == 0:
        tl.store(score + group, mean)
        tl.store(routed + group, leaves.to(tl.int8))
    place = (group * groups + row)[None, :] * width + column[:, None]
    inside = (row < groups)[None, :] & (column < width)[:, None]
    if leaves:
        if split == 0:
            taken = tl.zeros((WIDTH,), tl.float32)
            if HAS_SURROGATE:
                own = surrogate + b.to(tl.int64) * stride_sb + k.to(tl.int64) * stride_sh
                taken = tl.load(own + column, mask=column < width, other=0.0).to(tl.float32)
            filled = tl.zeros((WIDTH, ROWS), tl.float32) + taken[:, None]
            tl.store(output + place, filled.to(output.dtype.element_ty), mask=inside)
    else:
        begin = 0
        end = length
        if HAS_RANGES:
            begin = tl.load(starts + b).to(tl.int32)
            end = tl.minimum(tl.load(stops + b), length).to(tl.int32)
        each = tl.cdiv(tl.cdiv(tl.maximum(end - begin, 0), KEYS), splits) * KEYS
        low = begin + split * each
        high = tl.minimum(low + each, end)
        kb = stride_kb.to(tl.int64)
        kh = stride_kh.to(tl.int64)
        vb = stride_vb.to(tl.int64)
        vh = stride_vh.to(tl.int64)
        if ALIGNED:  # Said in place of Triton's own specialization, which would depend on the length of the cache.
            kb = tl.multiple_of(kb, 16)
            kh = tl.multiple_of(kh, 16)
            vb = tl.multiple_of(vb, 16)
            vh = tl.multiple_of(vh, 16)
        keys = key + b * kb + k * kh + low.to(tl.int64) * stride_ks
        values = value + b * vb + k * vh + low.to(tl.int64) * stride_vs
        mask += b.to(tl.int64) * stride_mb
        top = tl.zeros((ROWS,), tl.float32) + LOWEST
        total = tl.zeros((ROWS,), tl.float32)
        mixed = tl.zeros((WIDTH, ROWS), tl.float32)
        slot = tl.arange(0, KEYS)
        for tile in range(low, high, KEYS):
            seen = slot < high - tile
            if MASK == "bool":  # What is hidden is not read either.
                seen = seen & (tl.load(mask + (tile + slot) * stride_ms, mask=seen, other=0) != 0)
            at = keys + slot[:, None] * stride_ks + channel[None, :]
            key_tile = tl.load(at, mask=seen[:, None] & (channel < depth)[None, :], other=0.0)
            at = values + slot[None, :] * stride_vs + column[:, None]
            value_tile = tl.load(at, mask=seen[None, :] & (column < width)[:, None], other=0.0)
            keys += KEYS * stride_ks
            values += KEYS * stride_vs
            scores = product(key_tile, q, tl.zeros((KEYS, ROWS), tl.float32), WIDEN) * scale
            if HAS_CAP:
                scores = tanh(scores / cap) * cap
            if MASK == "float":
                scores += tl.load(mask + (tile + slot) * stride_ms, mask=seen, other=0.0).to(tl.float32)[:, None]
            scores = tl.where(seen[:, None], scores, LOWEST)
            highest = tl.maximum(top, tl.max(scores, axis=0))
            weight = tl.where(seen[:, None], tl.exp(scores - highest[None, :]), 0.0)
            fade = tl.exp(top - highest)
            mixed = product(value_tile, weight.to(value_tile.dtype), mixed * fade[None, :], WIDEN)
            total = total * fade + tl.sum(weight, axis=0)
            top = highest
        if SINGLE:
            mixed = mixed / tl.where(total == 0, 1.0, total)[None, :]
            tl.store(output + place, mixed.to(output.dtype.element_ty), mask=inside)
        else:
            own = (group * splits + split) * groups + row
            tl.store(tops + own, top, mask=row < groups)
            tl.store(totals + own, total, mask=row < groups)
            if low < high:
                tl.store(parts + own[None, :] * width + column[:, None], mixed, mask=inside)
# fmt: on


def routed_decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    anchor: Tensor,
    threshold: float | Tensor,
    *,
    starts: Tensor | None = None,
    stops: Tensor | None = None,
    mask: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    surrogate: Tensor | None = None,
    splits: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend with one query a sequence, but for the groups whose queries point at the anchor.

    Parameters
    ----------
    query : Tensor
        (B, H, 1, D), after position encoding. Of all tensors but `mask`, the last dimension has stride one.
    key, value : Tensor
        (B, K, T, D) and (B, K, T, D'), before repetition.
    anchor : Tensor
        (B, K, D), the key that queries are compared with.
    threshold : float or Tensor
        Of all sequences, or (B,) float32. A group whose mean cosine is above is routed, and one whose mean cosine is
        NaN is not.
    starts, stops : Tensor, optional
        (B,) int32 or int64, the first key that is seen, and the one after the last. None: all T.
    mask : Tensor, optional
        (B, T) bool, False at keys that are not seen, of which nothing is read; or float, added to the scores.
    scaling, softcap
        As for `omnisink.maths.relaxation.attend_to_all`.
    surrogate : Tensor, optional
        (B, K, D'), the output of routed groups; zero if it is None.
    splits : int, optional
        Parts that the keys are cut into, for tests.

    Returns
    -------
    output : Tensor
        (B, H, 1, D') in the dtype of `value`. Zero where no key is seen.
    score : Tensor
        (B, K) float32, the mean cosines.
    routed : Tensor
        (B, K) bool.
    """
    batch, heads, _, _ = query.shape
    _, kv_heads, length, width = value.shape
    if splits is None:
        splits = number_of_splits(length, batch * kv_heads, query.get_device())
    single = splits == 1
    output = value.new_empty((batch, heads, 1, width))
    score = value.new_empty((batch, kv_heads), dtype=torch.float32)
    routed = value.new_empty((batch, kv_heads), dtype=torch.bool)
    parts = score if single else score.new_empty((batch * splits * heads, width))
    tops, totals = (score, score) if single else score.new_empty((2, batch * splits * heads)).unbind(0)
    # A pointer that is not used still has to be one.
    laid_out = (
        query, key, value, anchor, anchor if surrogate is None else surrogate,
        threshold if isinstance(threshold, Tensor) else score, routed if mask is None else mask,
    )  # fmt: skip
    ranges = (routed, routed) if starts is None or stops is None else (starts, stops)
    scale = query.shape[3] ** -0.5 if scaling is None else float(scaling)
    cap = None if softcap is None else float(softcap)
    limit = 0.0 if isinstance(threshold, Tensor) else float(threshold)
    if mask is None:
        masked = ""
    else:
        masked = "bool" if mask.dtype == torch.bool else "float"
    has = (surrogate is not None, isinstance(threshold, Tensor), ranges[0].dtype, masked)
    if len(_PREPARED) > _MOST_PREPARED:
        _PREPARED.clear()
    launch_again(
        _PREPARED,
        ("route", query.get_device(), length, limit, scale, cap, splits, has),
        lambda: [_routing(*laid_out, splits, limit, scale, cap, has)],
        (*laid_out, *ranges, output, score, routed, parts, tops, totals),
        checked=len(laid_out),
    )
    if not single:
        launch_again(
            _PREPARED,
            ("merge", query.get_device(), kv_heads, splits),
            lambda: [merging(output, kv_heads, splits)],
            (output, routed, parts, tops, totals),
        )
    return output, score, routed


def _routing(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    anchor: Tensor,
    surrogate: Tensor,
    threshold: Tensor,
    mask: Tensor,
    splits: int,
    limit: float,
    scale: float,
    cap: float | None,
    has: tuple[bool, bool, torch.dtype, str],
) -> Arguments:
    batch, heads, _, depth = query.shape
    _, kv_heads, length, width = value.shape
    groups = heads // kv_heads
    wide, tall = max(16, power_of_two(width)), max(16, power_of_two(depth))
    qb, qh, _, _ = query.stride()
    kb, kh, ks, _ = key.stride()
    vb, vh, vs, _ = value.stride()
    ab, ah, _ = anchor.stride()
    has_surrogate, has_thresholds, ranges, masked = has
    sb, sh, _ = surrogate.stride()
    mb, ms = mask.stride()
    fixed = (
        length, limit, scale, cap or 1.0, groups, depth, width, qb, qh, kb, kh, ks, vb, vh, vs, ab, ah, sb, sh, mb, ms,
    )  # fmt: skip
    wide_numbers = query.dtype == torch.float32
    constants = {
        "ALIGNED": all(stride % 16 == 0 for stride in (kb, kh, vb, vh)),
        "HAS_CAP": cap is not None,
        "HAS_SURROGATE": has_surrogate,
        "HAS_THRESHOLDS": has_thresholds,
        "HAS_RANGES": ranges != torch.bool,
        "MASK": masked,
        "SINGLE": splits == 1,
        "WIDEN": not isinstance(route, triton.JITFunction),
        "ROWS": max(16, power_of_two(groups)),
        # As many as leave two programs room on a multiprocessor, and float32 its registers.
        "KEYS": 16 if wide_numbers else 8192 // max(wide, tall, 64),
        "DEPTH": tall,
        "WIDTH": wide,
        "num_warps": 8 if wide_numbers and max(wide, tall) > 128 else 4,
    }
    return route, (splits, kv_heads, batch), fixed, constants
