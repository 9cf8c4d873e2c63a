"""Relaxed rows: chosen tokens attend to their whole prompt, and take the result as their head outputs. One launch."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.layout import Layout
from omnisink.kernels.prepared import Arguments, launch_again
from omnisink.kernels.rotation import tanh
from omnisink.kernels.sizes import pieces, power_of_two

#: Stands for minus infinity, of which differences could not be taken.
_LOWEST = tl.constexpr(-3.0e38)
_NOBODY = tl.constexpr(0x7FFFFFFF)


#: Integers that a prompt's length decides, and tensors that may begin anywhere: one compiled kernel is for all.
_ANY = ["logits", "sinks", "stamps", "length", "window", "stamp", "stride_ob"]
_ANY += [f"stride_{of}{dim}" for of in "qkv" for dim in "bh"]


# fmt: off
@triton.jit(do_not_specialize=_ANY)
def relax(
    output, query, key, value, logits, sinks, stamps, sequence, first, stop, sizes, length, window, scale, cap, groups,
    depth, width, stride_qb, stride_qh, stride_qs, stride_kb, stride_kh, stride_ks, stride_vb, stride_vh, stride_vs,
    stride_ob, stride_os, stride_oh, stamp, ALIGNED: tl.constexpr, HAS_CAP: tl.constexpr,
    HAS_LOGITS: tl.constexpr, TOKENS: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr,
):
    h = tl.program_id(1)
    s = tl.program_id(2)
    begin = tl.load(first + s)
    end = tl.load(stop + s)
    at = begin + tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    marked = tl.load(sinks + at, mask=at < end, other=0) != 0
    number = tl.sum(marked.to(tl.int32), axis=0)
    if (number > 0) & ((window == 0) | (tl.load(sizes + s) <= window)):
        # Another head's program may have put this layer's stamp there already; it says the same.
        before = tl.load(stamps + at, mask=marked, other=0)
        left = marked & ((before == 0) | (before == stamp))
        tl.store(stamps + at, tl.zeros((TOKENS,), tl.int32) + stamp, mask=left)
        qb = stride_qb.to(tl.int64)
        qh = stride_qh.to(tl.int64)
        kb = stride_kb.to(tl.int64)
        kh = stride_kh.to(tl.int64)
        vb = stride_vb.to(tl.int64)
        vh = stride_vh.to(tl.int64)
        ob = stride_ob.to(tl.int64)
        if ALIGNED:  # Said in place of Triton's own specialization, which would depend on the prompt's length.
            kb = tl.multiple_of(kb, 16)
            kh = tl.multiple_of(kh, 16)
            vb = tl.multiple_of(vb, 16)
            vh = tl.multiple_of(vh, 16)
        k = h // groups
        channel = tl.arange(0, DEPTH)
        column = tl.arange(0, WIDTH)
        for _ in range(tl.sum(left.to(tl.int32), axis=0)):
            token = tl.min(tl.where(left, at, _NOBODY), axis=0)
            left = left & (at != token)
            own = query + (token // length).to(tl.int64) * qb + h * qh + (token % length).to(tl.int64) * stride_qs
            q = tl.load(own + channel, mask=channel < depth, other=0.0).to(tl.float32)
            top = _LOWEST
            total = 0.0
            mixed = tl.zeros((WIDTH,), tl.float32)
            for start in range(begin, end, KEYS):
                other = start + tl.arange(0, KEYS)
                seen = tl.load(sequence + other, mask=other < end, other=-1) == s
                b = (other // length).to(tl.int64)
                i = (other % length).to(tl.int64)
                inside = (other < end)[:, None]
                place = (b * kb + k * kh + i * stride_ks)[:, None] + channel[None, :]
                keys = tl.load(key + place, mask=inside & (channel[None, :] < depth), other=0.0)
                place = (b * vb + k * vh + i * stride_vs)[:, None] + column[None, :]
                values = tl.load(value + place, mask=inside & (column[None, :] < width), other=0.0)
                keys = tl.where(seen[:, None], keys.to(tl.float32), 0.0)
                score = tl.sum(keys * q[None, :], axis=1) * scale
                if HAS_CAP:
                    score = tanh(score / cap) * cap
                score = tl.where(seen, score, _LOWEST)
                highest = tl.maximum(top, tl.max(score, axis=0))
                weight = tl.where(seen, tl.exp(score - highest), 0.0)
                fade = tl.exp(top - highest)
                values = tl.where(seen[:, None], values.to(tl.float32), 0.0)
                mixed = mixed * fade + tl.sum(weight[:, None] * values, axis=0)
                total = total * fade + tl.sum(weight, axis=0)
                top = highest
            if HAS_LOGITS:
                logit = tl.load(logits + h).to(tl.float32)
                highest = tl.maximum(top, logit)
                fade = tl.exp(top - highest)
                mixed = mixed * fade
                total = total * fade + tl.exp(logit - highest)
            place = (token // length).to(tl.int64) * ob + (token % length).to(tl.int64) * stride_os + h * stride_oh
            row = (mixed / total).to(output.dtype.element_ty)
            tl.store(output + place + column, row, mask=column < width)
# fmt: on


def relax_in_place(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor,
    stamps: Tensor,
    layout: Layout,
    *,
    stamp: int,
    scaling: float | None = None,
    softcap: float | None = None,
    learned_sink: Tensor | None = None,
    window: int | None = None,
) -> None:
    """Give sinks that have not been relaxed yet the attention over their whole prompt.

    The same as `omnisink.maths.relaxation.attend_to_all` and `replace_rows`. What it costs is a matter of how many
    rows there are to relax, however many there could be.

    Parameters
    ----------
    output : Tensor
        Head outputs (B, S, H, D'), changed in place.
    query : Tensor
        (B, H, S, D).
    key, value : Tensor
        (B, K, T, D) and (B, K, T, D'), before repetition; only tokens below S are read.
    sinks : Tensor
        (B, S) bool, contiguous, False at padding.
    stamps : Tensor
        (B, S) int32, zero for tokens that have not been relaxed yet; those that are get `stamp`.
    layout : Layout
        The sequences.
    stamp : int
        Positive, another one for each layer.
    scaling, softcap, learned_sink
        As for `omnisink.maths.relaxation.attend_to_all`.
    window : int, optional
        Sequences with more tokens are left out.
    """
    query, key, value = (x if x.stride(3) == 1 else x.contiguous() for x in (query, key, value))
    scale = query.shape[3] ** -0.5 if scaling is None else float(scaling)
    cap = None if softcap is None else float(softcap)
    has_logits = learned_sink is not None
    launch_again(
        layout.prepared,
        ("relax", scale, cap, window, has_logits),
        lambda: [_relaxing(output, query, key, value, layout, scale, cap, window, has_logits)],
        (output, query, key, value, query if learned_sink is None else learned_sink, sinks, stamps),
        (stamp,),
        checked=5,
    )


def _relaxing(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    cap: float | None,
    window: int | None,
    has_logits: bool,
) -> Arguments:
    depth, width, groups = query.shape[3], value.shape[3], query.shape[1] // key.shape[1]
    wide, tall = max(16, power_of_two(width)), max(16, power_of_two(depth))
    qb, qh, qs, _ = query.stride()
    kb, kh, ks, _ = key.stride()
    vb, vh, vs, _ = value.stride()
    ob, os, oh, _ = output.stride()
    fixed = (
        layout.sequence, layout.first, layout.stop, layout.sizes, layout.length, window or 0, scale, cap or 1.0,
        groups, depth, width, qb, qh, qs, kb, kh, ks, vb, vh, vs, ob, os, oh,
    )  # fmt: skip
    constants = {
        "ALIGNED": all(stride % 16 == 0 for stride in (kb, kh, vb, vh)),
        "HAS_CAP": cap is not None,
        "HAS_LOGITS": has_logits,
        "TOKENS": 64,
        "KEYS": max(16, 8192 // max(wide, tall)),
        "DEPTH": tall,
        "WIDTH": wide,
        "num_warps": 4,
    }
    return relax, (pieces(layout.longest, 64), query.shape[1], layout.sequences), fixed, constants
