"""Which tokens are sinks by the massive-activation rule: exactly, in two launches, whatever the prompt.

`scan` reads the residual stream once: the largest activation of every token, and for each sequence how many tokens
reach the floor (its candidates), the smallest and the largest of them, and the first few by name. `count` reads it
again only where a sequence has a candidate, and answers the rule's question, how many ``r * |h|`` are at most m:

- for few candidates, at the magnitude of each of them: one of them is the threshold, or none;
- for many, by sorting ``|h|`` into bins. In half precision a bin is one value, and the bin that holds the median is
  the median. In float32 the bins cover only what the candidates leave open, from the smallest to the largest of them
  over the ratio. Few streams have a candidate whose answer depends on where in its bin the median is. For those, the
  last program of the sequence sorts that bin again by itself, until a bin is one value: slower, and just as exact.

The program of a sequence that is the last to finish marks the sinks; nobody waits for anybody. Magnitudes are compared
as the bits of a float32, which are ordered as the numbers are, with NaN above infinity.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.counting import (
    INFINITY,
    TOP,
    any_between,
    count_bins,
    count_levels,
    ends_of,
    from_bits,
    median_bin,
    shift_for,
)
from omnisink.kernels.layout import Layout
from omnisink.kernels.prepared import Arguments, launch_again
from omnisink.kernels.sizes import pieces, power_of_two
from omnisink.kernels.workspace import BINS, FEW, NOT_FINITE, WORDS, Workspace

#: The largest bits of a candidate; their distance from TOP, for the smallest; how many; programs done; not finite.
_HIGH, _LOW, _NUMBER, _DONE = (tl.constexpr(i) for i in range(4))
_NOT_FINITE = tl.constexpr(NOT_FINITE)
_NAMED, _COUNTS = tl.constexpr(8), tl.constexpr(8 + FEW)


# fmt: off
@triton.jit(do_not_specialize=["length", "offset", "marked"])
def scan(
    hidden, sequence, magnitude, numbers, length, stride_b, stride_s, width, floor, offset, marked,
    WORDS: tl.constexpr, FEW: tl.constexpr, BLOCK: tl.constexpr,
):
    token = tl.program_id(0)
    s = tl.load(sequence + token)
    largest = tl.zeros((BLOCK,), tl.int32)
    if s >= 0:
        row = hidden + (token // length).to(tl.int64) * stride_b + (token % length).to(tl.int64) * stride_s
        for start in range(0, width, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(row + at, mask=at < width, other=0.0).to(tl.float32)
            largest = tl.maximum(largest, x.to(tl.int32, bitcast=True) & TOP)
    bits = tl.max(largest, axis=0)
    value = bits.to(tl.float32, bitcast=True)
    tl.store(magnitude + marked.to(tl.int64) + token, value)
    if value >= floor:  # Not so for NaN, nor for padding.
        own = numbers + offset + s.to(tl.int64) * WORDS
        tl.atomic_max(own + _HIGH, bits.to(tl.int64), sem="relaxed")
        tl.atomic_max(own + _LOW, -bits.to(tl.int64) + TOP, sem="relaxed")
        place = tl.atomic_add(own + _NUMBER, 1, sem="relaxed")
        if place < FEW:
            tl.store(own + _NAMED + place, bits.to(tl.int64))
    if bits >= INFINITY:
        tl.atomic_max(numbers + offset + s.to(tl.int64) * WORDS + _NOT_FINITE, 1)
# fmt: on


# fmt: off
@triton.jit(do_not_specialize=["length", "rows", "offset", "marked"])
def count(
    hidden, sequence, magnitude, numbers, bins, sinks, first, stop, sizes, length, stride_b, stride_s, width, ratio,
    floor, rows, offset, marked, WORDS: tl.constexpr, FEW: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    s = tl.program_id(1)
    own = numbers + offset + s.to(tl.int64) * WORDS
    magnitude += marked.to(tl.int64)
    bins += s.to(tl.int64) * BINS
    high = tl.load(own + _HIGH).to(tl.int32)
    begin = tl.load(first + s)
    end = tl.load(stop + s)
    start = begin + tl.program_id(0) * rows
    if (high > 0) & (start < end):
        low = -tl.load(own + _LOW).to(tl.int32) + TOP
        number = tl.load(own + _NUMBER)
        last = tl.minimum(start + rows, end)
        slots = tl.arange(0, FEW)
        levels = tl.load(own + _NAMED + slots).to(tl.int32)
        lowest = low.to(tl.float32, bitcast=True)
        highest = high.to(tl.float32, bitcast=True)
        base = 0
        shift = 0
        if hidden.dtype.element_ty.primitive_bitwidth == 32:
            # A quotient may be off by a step or two; what is outside for that goes to the bins at the ends.
            base = tl.maximum((lowest / ratio).to(tl.int32, bitcast=True) - 4, 0)
            top = tl.minimum((highest / ratio).to(tl.int32, bitcast=True), INFINITY)
            shift = shift_for(tl.maximum(top - base, 0) + 8, BINS)
        if number <= FEW:
            found = count_levels(
                hidden, sequence, s, start, last, levels, number.to(tl.int32), length, stride_b, stride_s, width,
                ratio, FEW, BLOCK,
            )
            tl.atomic_add(own + _COUNTS + slots, found, mask=slots < number)
        else:
            below = count_bins(
                hidden, bins, sequence, s, start, last, lowest, highest, 0, TOP, base, shift, length, stride_b,
                stride_s, width, ratio, BINS, BLOCK,
            )
            tl.atomic_add(own + _COUNTS, below.to(tl.int64))
        tl.debug_barrier()  # Every thread's counts are out before the program says that it is done.
        done = tl.atomic_add(own + _DONE, 1)
        if done == tl.cdiv(end - begin, rows) - 1:
            # The last one to come finds all the counts.
            needed = (tl.load(sizes + s).to(tl.int64) * width + 1) // 2
            counts = tl.load(own + _COUNTS + slots, volatile=True)
            holding = TOP  # The lowest bits of a magnitude that are known to hold.
            if number <= FEW:
                holding = tl.min(tl.where((slots < number) & (counts >= needed), levels, TOP), axis=0)
            else:
                below = tl.sum(tl.where(slots == 0, counts, 0), axis=0)
                middle, before = median_bin(bins, below, needed, BINS, CHUNK)
                if below >= needed:
                    holding = low
                elif middle < BINS:
                    # The ends of the bin give those of the threshold, which are one where a bin is one value.
                    least, most = ends_of(middle, base, shift, BINS)
                    holding = (from_bits(most, hidden) * ratio).to(tl.int32, bitcast=True)
                    if hidden.dtype.element_ty.primitive_bitwidth == 32:
                        failing = (from_bits(least, hidden) * ratio).to(tl.int32, bitcast=True) - 1
                        while (least < most) & any_between(
                            magnitude, sequence, s, begin, end, floor, failing, holding, CHUNK
                        ):
                            base = least
                            shift = shift_for(most - least, BINS)
                            tl.debug_barrier()  # The bins are zero before anything is counted again,
                            count_bins(
                                hidden, bins, sequence, s, begin, end, lowest, highest, least, most, base, shift,
                                length, stride_b, stride_s, width, ratio, BINS, BLOCK,
                            )
                            tl.debug_barrier()  # and all is counted before it is read.
                            middle, before = median_bin(bins, before, needed, BINS, CHUNK)
                            least = base + (middle << shift)
                            most = tl.minimum(least + (1 << shift) - 1, most)
                            failing = (from_bits(least, hidden) * ratio).to(tl.int32, bitcast=True) - 1
                            holding = (from_bits(most, hidden) * ratio).to(tl.int32, bitcast=True)
            if holding < TOP:
                for piece in range(begin, end, CHUNK):
                    at = piece + tl.arange(0, CHUNK)
                    m = tl.load(magnitude + at, mask=at < end, other=0.0)
                    mine = (at < end) & (tl.load(sequence + at, mask=at < end, other=-1) == s)
                    passes = (m >= floor) & (m.to(tl.int32, bitcast=True) >= holding)
                    tl.store(sinks + marked.to(tl.int64) + at, passes.to(tl.int8), mask=mine)
# fmt: on


def find_sinks(
    hidden: Tensor, workspace: Workspace, layer: int, *, min_activation: float, median_ratio: float
) -> None:
    """Mark the sinks of a layer in ``workspace.sinks``, as `omnisink.maths.sinks.massive_activation_sinks` does.

    Parameters
    ----------
    hidden : Tensor
        Residual stream, (B, S, d), with any strides but that of the channels.
    workspace : Workspace
        Of this prefill; its numbers of this layer are still zero.
    layer : int
        Which of the workspace's layers.
    min_activation, median_ratio : float
        Thresholds.
    """
    if hidden.stride(2) != 1:
        hidden = hidden.contiguous()
    layout = workspace.layout
    thresholds = float(min_activation), float(median_ratio)
    launch_again(
        layout.prepared,
        ("detection", *thresholds),
        lambda: (_scanning(hidden, workspace, *thresholds), _counting(hidden, workspace, *thresholds)),
        (hidden,),
        (layer * layout.sequences * WORDS, layer * layout.tokens),
    )


def _scanning(hidden: Tensor, workspace: Workspace, floor: float, ratio: float) -> Arguments:
    layout, width = workspace.layout, hidden.shape[2]
    stride_b, stride_s, _ = hidden.stride()
    fixed = (
        layout.sequence, workspace.magnitude, workspace.numbers, layout.length, stride_b, stride_s, width, floor,
    )  # fmt: skip
    constants = {"WORDS": WORDS, "FEW": FEW, "BLOCK": min(4096, power_of_two(width))}
    return scan, (layout.tokens, 1, 1), fixed, constants


def _counting(hidden: Tensor, workspace: Workspace, floor: float, ratio: float) -> Arguments:
    layout, width = workspace.layout, hidden.shape[2]
    stride_b, stride_s, _ = hidden.stride()
    rows = min(8, max(1, layout.longest // 512))
    fixed = (
        layout.sequence, workspace.magnitude, workspace.numbers, workspace.bins, workspace.marks, layout.first,
        layout.stop, layout.sizes, layout.length, stride_b, stride_s, width, ratio, floor, rows,
    )  # fmt: skip
    constants = {
        "WORDS": WORDS,
        "FEW": FEW,
        "BINS": BINS,
        "BLOCK": min(4096, power_of_two(width)),
        "CHUNK": 1024,
        "num_warps": 8,
    }
    return count, (pieces(layout.longest, rows), layout.sequences, 1), fixed, constants


def sinks_of(hidden: Tensor, token_mask: Tensor | None, *, min_activation: float, median_ratio: float) -> Tensor:
    """Find the sinks of one layer by itself, without a workspace; see `find_sinks`.

    Parameters
    ----------
    hidden : Tensor
        Residual stream, (B, S, d).
    token_mask : Tensor or None
        (B, S) bool, False at padding; None where every token is real.
    min_activation, median_ratio : float
        Thresholds.

    Returns
    -------
    Tensor
        (B, S) bool.
    """
    workspace = Workspace.of(Layout.of_batch(hidden.shape[0], hidden.shape[1], token_mask, hidden.device), 1)
    find_sinks(hidden, workspace, 0, min_activation=min_activation, median_ratio=median_ratio)
    return workspace.sinks[0]
