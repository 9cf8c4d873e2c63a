"""The unit vector of a layer's mean sink value, and the tokens that are not rotated from here on: one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.layout import Layout
from omnisink.kernels.prepared import Arguments, launch_again
from omnisink.kernels.sizes import power_of_two

_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)


# fmt: off
@triton.jit(do_not_specialize=["sinks", "frozen", "slots", "length", "stride_vb", "stride_vk"])
def direct(
    value, out, sinks, frozen, slots, first, stop, length, stride_vb, stride_vk, stride_vs, width, stride_n, groups,
    FREEZE: tl.constexpr, HAS_SLOTS: tl.constexpr, ALIGNED: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    k = tl.program_id(0)
    s = tl.program_id(1)
    begin = tl.load(first + s)
    end = tl.load(stop + s)
    column = tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), tl.float32)
    number = 0
    head_stride = stride_vk.to(tl.int64)
    batch_stride = stride_vb.to(tl.int64)
    if ALIGNED:  # Said in place of Triton's own specialization, which would depend on the prompt's length.
        head_stride = tl.multiple_of(head_stride, 16)
        batch_stride = tl.multiple_of(batch_stride, 16)
    for start in range(begin, end, CHUNK):
        at = start + tl.arange(0, CHUNK)
        hit = tl.load(sinks + at, mask=at < end, other=0) != 0
        here = tl.sum(hit.to(tl.int32), axis=0)
        if here > 0:
            number += here
            if FREEZE and k == 0:
                tl.store(frozen + at, tl.full((CHUNK,), 1, tl.int8), mask=hit)
            # Only the rows of sinks are read: from the tile of the first to that of the last.
            lowest = tl.min(tl.where(hit, at, end), axis=0)
            highest = tl.max(tl.where(hit, at, begin), axis=0)
            for tile in range(lowest, highest + 1, TILE):
                token = tile + tl.arange(0, TILE)
                marked = tl.load(sinks + token, mask=token <= highest, other=0) != 0
                row = (token // length).to(tl.int64) * batch_stride + (token % length).to(tl.int64) * stride_vs
                place = row[:, None] + k * head_stride + column[None, :]
                wanted = marked[:, None] & (column[None, :] < width)
                total += tl.sum(tl.load(value + place, mask=wanted, other=0.0).to(tl.float32), axis=0)
    mean = total / tl.maximum(number, 1).to(tl.float32)
    unit = mean / tl.maximum(tl.sqrt(tl.sum(mean * mean, axis=0)), _TINY)
    slot = s.to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots + s).to(tl.int64)
    for g in range(groups):
        place = out + slot * stride_n + (k * groups + g) * width + column
        tl.store(place, unit, mask=column < width)
# fmt: on


def write_direction(
    value: Tensor,
    sinks: Tensor,
    layout: Layout,
    out: Tensor,
    *,
    slots: Tensor | None = None,
    frozen: Tensor | None = None,
) -> None:
    """Write the unit vectors of the mean sink values, as `omnisink.maths.rotation.sink_direction` gives them.

    Parameters
    ----------
    value : Tensor
        (B, K, T, D'), before repetition; only tokens below S are read.
    sinks : Tensor
        (B, S) bool, contiguous, False at padding.
    layout : Layout
        The sequences.
    out : Tensor
        (slots, H, D') float32, which is written for the sequences' slots; H is a multiple of K. Zero without a sink.
    slots : Tensor, optional
        (n,) int32 or int64, where the vectors of each sequence go. None: the n-th sequence's go to slot n.
    frozen : Tensor, optional
        (B, S) bool, to which the sinks are added.
    """
    if value.stride(3) != 1:
        value = value.contiguous()
    launch_again(
        layout.prepared,
        ("direct", frozen is not None, None if slots is None else slots.dtype),
        lambda: [_directing(value, layout, out, slots, frozen is not None)],
        (value, out, sinks, sinks if frozen is None else frozen, layout.first if slots is None else slots),
        checked=2,
    )


def _directing(value: Tensor, layout: Layout, out: Tensor, slots: Tensor | None, freezes: bool) -> Arguments:
    _, heads, _, width = value.shape
    padded = max(16, power_of_two(width))
    stride_b, stride_k, stride_s, _ = value.stride()
    fixed = (
        layout.first, layout.stop, layout.length, stride_b, stride_k, stride_s, width, out.stride(0),
        out.shape[1] // heads,
    )  # fmt: skip
    constants = {
        "FREEZE": freezes,
        "HAS_SLOTS": slots is not None,
        "ALIGNED": stride_b % 16 == 0 and stride_k % 16 == 0,
        "WIDTH": padded,
        "TILE": max(1, 4096 // padded),
        "CHUNK": 1024,
    }
    return direct, (heads, layout.sequences, 1), fixed, constants
