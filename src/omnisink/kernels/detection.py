"""Which tokens are sinks by the massive-activation rule: exactly, in two launches, whatever the prompt.

`scan` reads the residual stream once: the largest activation of every token, and for each sequence how many tokens
reach the floor (its candidates), the smallest and the largest of them, and the first few by name. `count` reads it
again only where a sequence has a candidate, and answers the rule's question, how many ``r * |h|`` are at most m:

- for few candidates, at the magnitude of each of them: one of them is the threshold, or none;
- for many, by sorting ``|h|`` into bins of its leading sixteen bits. Half precision has no more bits, so the bin that
  holds the median is the median. A float32 has; candidates that fall between the ends of that bin are left open, and
  the last program of the sequence bisects among them by itself: rare, slower, and just as exact.

The program of a sequence that is the last to finish marks the sinks; nobody waits for anybody. Magnitudes are compared
as the bits of a float32, which are ordered as the numbers are, with NaN above infinity.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.launch import launch
from omnisink.kernels.layout import Layout
from omnisink.kernels.sizes import pieces, power_of_two
from omnisink.kernels.workspace import BINS, FEW, NOT_FINITE, WORDS, Workspace

#: The largest bits of a candidate; their distance from _TOP, for the smallest; how many; programs done; not finite.
_HIGH, _LOW, _NUMBER, _DONE = (tl.constexpr(i) for i in range(4))
_NOT_FINITE = tl.constexpr(NOT_FINITE)
_NAMED, _COUNTS = tl.constexpr(8), tl.constexpr(8 + FEW)
_TOP = tl.constexpr(0x7FFFFFFF)
_INFINITY = tl.constexpr(0x7F800000)


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
            largest = tl.maximum(largest, x.to(tl.int32, bitcast=True) & _TOP)
    bits = tl.max(largest, axis=0)
    value = bits.to(tl.float32, bitcast=True)
    tl.store(magnitude + marked.to(tl.int64) + token, value)
    if value >= floor:  # Not so for NaN, nor for padding.
        own = numbers + offset + s.to(tl.int64) * WORDS
        tl.atomic_max(own + _HIGH, bits.to(tl.int64), sem="relaxed")
        tl.atomic_max(own + _LOW, -bits.to(tl.int64) + _TOP, sem="relaxed")
        place = tl.atomic_add(own + _NUMBER, 1, sem="relaxed")
        if place < FEW:
            tl.store(own + _NAMED + place, bits.to(tl.int64))
    if bits >= _INFINITY:
        tl.atomic_max(numbers + offset + s.to(tl.int64) * WORDS + _NOT_FINITE, 1)
# fmt: on


@triton.jit
def _bin_at(place):
    """Where a bin is kept: neighbours in value, which are used most, lie in different sectors of memory."""
    return (place % 256) * 128 + place // 256


@triton.jit
def _leading_bits(x):
    """Return the leading sixteen bits of the absolute value of half precision or float32, as an integer."""
    if x.dtype.primitive_bitwidth == 16:
        return x.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    else:
        return (x.to(tl.int32, bitcast=True) & _TOP) >> 16


@triton.jit
def _from_leading_bits(bits, x, rest):
    """Return the float32 of a bin, for a pointer's dtype; only float32 has trailing bits, those of `rest`."""
    if x.dtype.element_ty.primitive_bitwidth == 16:
        return bits.to(tl.int16).to(x.dtype.element_ty, bitcast=True).to(tl.float32)
    else:
        return ((bits << 16) | rest).to(tl.float32, bitcast=True)


# fmt: off
@triton.jit
def _count_levels(
    hidden, sequence, s, begin, end, levels, number, length, stride_b, stride_s, width, ratio,
    FEW: tl.constexpr, BLOCK: tl.constexpr,
):
    """How many of a sequence's ``ratio * |h|`` are at most each of the first levels, in a range of tokens."""
    slots = tl.arange(0, FEW)
    found = tl.zeros((FEW,), tl.int64)
    for token in range(begin, end):
        if tl.load(sequence + token) == s:
            row = hidden + (token // length).to(tl.int64) * stride_b + (token % length).to(tl.int64) * stride_s
            for piece in range(0, width, BLOCK):
                at = piece + tl.arange(0, BLOCK)
                x = tl.load(row + at, mask=at < width, other=float("nan")).to(tl.float32)
                x = tl.abs(x) * ratio
                for j in range(number):
                    level = tl.sum(tl.where(slots == j, levels, 0), axis=0).to(tl.float32, bitcast=True)
                    found += tl.where(slots == j, tl.sum((x <= level).to(tl.int32), axis=0), 0)
    return found


@triton.jit
def _count_bins(
    hidden, bins, sequence, s, begin, end, low, high, length, stride_b, stride_s, width, ratio, BLOCK: tl.constexpr,
):
    """Sort a range of tokens into bins where ``ratio * |h|`` is from low to high; return how many are below."""
    below = tl.zeros((BLOCK,), tl.int32)
    for token in range(begin, end):
        if tl.load(sequence + token) == s:
            row = hidden + (token // length).to(tl.int64) * stride_b + (token % length).to(tl.int64) * stride_s
            for piece in range(0, width, BLOCK):
                at = piece + tl.arange(0, BLOCK)
                x = tl.load(row + at, mask=at < width, other=float("nan"))
                scaled = tl.abs(x.to(tl.float32)) * ratio
                below += (scaled < low).to(tl.int32)
                inside = (scaled >= low) & (scaled <= high)
                tl.atomic_add(bins + _bin_at(_leading_bits(x)), 1, mask=inside, sem="relaxed")
    return tl.sum(below, axis=0)


@triton.jit
def _median_bin(bins, below, needed, BINS: tl.constexpr, CHUNK: tl.constexpr):
    """Find the first bin up to which as many as needed are counted, else BINS; the bins are zero afterwards."""
    found = BINS
    total = below
    for start in range(0, BINS, CHUNK):
        place = start + tl.arange(0, CHUNK)
        number = tl.load(bins + _bin_at(place), volatile=True)
        tl.store(bins + _bin_at(place), tl.zeros((CHUNK,), tl.int32))
        reached = total + tl.cumsum(number.to(tl.int64), axis=0)
        found = tl.minimum(found, tl.min(tl.where(reached >= needed, place, BINS), axis=0))
        total += tl.sum(number.to(tl.int64), axis=0)
    return found
# fmt: on


@triton.jit
def _between(magnitude, sequence, s, begin, end, floor, failing, holding, CHUNK: tl.constexpr):
    """Smallest and largest bits of the candidates strictly between two levels; the top and zero without one."""
    lowest = tl.full((CHUNK,), _TOP, tl.int32)
    highest = tl.zeros((CHUNK,), tl.int32)
    for start in range(begin, end, CHUNK):
        at = start + tl.arange(0, CHUNK)
        m = tl.load(magnitude + at, mask=at < end, other=0.0)
        own = tl.load(sequence + at, mask=at < end, other=-1) == s
        bits = m.to(tl.int32, bitcast=True)
        open_ = own & (m >= floor) & (bits > failing) & (bits < holding)
        lowest = tl.minimum(lowest, tl.where(open_, bits, _TOP))
        highest = tl.maximum(highest, tl.where(open_, bits, 0))
    return tl.min(lowest, axis=0), tl.max(highest, axis=0)


# fmt: off
@triton.jit(do_not_specialize=["length", "offset", "marked", "rows"])
def count(
    hidden, sequence, magnitude, numbers, bins, sinks, first, stop, sizes, length, stride_b, stride_s, width, ratio,
    floor, offset, marked, rows, WORDS: tl.constexpr, FEW: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
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
        low = -tl.load(own + _LOW).to(tl.int32) + _TOP
        number = tl.load(own + _NUMBER)
        last = tl.minimum(start + rows, end)
        slots = tl.arange(0, FEW)
        levels = tl.load(own + _NAMED + slots).to(tl.int32)
        if number <= FEW:
            found = _count_levels(
                hidden, sequence, s, start, last, levels, number.to(tl.int32), length, stride_b, stride_s, width,
                ratio, FEW, BLOCK,
            )
            tl.atomic_add(own + _COUNTS + slots, found, mask=slots < number)
        else:
            below = _count_bins(
                hidden, bins, sequence, s, start, last, low.to(tl.float32, bitcast=True),
                high.to(tl.float32, bitcast=True), length, stride_b, stride_s, width, ratio, BLOCK,
            )
            tl.atomic_add(own + _COUNTS, below.to(tl.int64))
        tl.debug_barrier()  # Every thread's counts are out before the program says that it is done.
        done = tl.atomic_add(own + _DONE, 1)
        if done == tl.cdiv(end - begin, rows) - 1:
            # The last one to come finds all the counts.
            needed = (tl.load(sizes + s).to(tl.int64) * width + 1) // 2
            counts = tl.load(own + _COUNTS + slots, volatile=True)
            holding = _TOP  # The lowest bits that are known to hold; what is below the failing ones fails.
            failing = _TOP
            if number <= FEW:
                holding = tl.min(tl.where((slots < number) & (counts >= needed), levels, _TOP), axis=0)
            else:
                below = tl.sum(tl.where(slots == 0, counts, 0), axis=0)
                middle = _median_bin(bins, below, needed, BINS, CHUNK)
                if below >= needed:
                    holding = low
                elif middle < BINS:
                    # From a bin's ends follow the ends of the threshold, which are one in half precision.
                    least = _from_leading_bits(middle, hidden, 0) * ratio
                    most = _from_leading_bits(middle, hidden, 0xFFFF) * ratio
                    failing = least.to(tl.int32, bitcast=True) - 1
                    holding = most.to(tl.int32, bitcast=True)
            low, high = _between(magnitude, sequence, s, begin, end, floor, failing, holding, CHUNK)
            while low <= high:
                levels = low + ((high - low) // (FEW - 1)) * slots
                levels = tl.where(slots == FEW - 1, high, levels)
                counts = _count_levels(
                    hidden, sequence, s, begin, end, levels, FEW, length, stride_b, stride_s, width, ratio, FEW, BLOCK,
                )
                holding = tl.minimum(holding, tl.min(tl.where(counts >= needed, levels, _TOP), axis=0))
                failing = tl.maximum(failing, tl.max(tl.where(counts < needed, levels, 0), axis=0))
                low, high = _between(magnitude, sequence, s, begin, end, floor, failing, holding, CHUNK)
            if holding < _TOP:
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
    width = hidden.shape[2]
    block = min(4096, power_of_two(width))
    offset, marked = layer * layout.sequences * WORDS, layer * layout.tokens
    stride_b, stride_s, _ = hidden.stride()
    where = (layout.length, stride_b, stride_s, width)
    launch(
        scan, (layout.tokens, 1, 1),
        hidden, layout.sequence, workspace.magnitude, workspace.numbers, *where, float(min_activation), offset,
        marked, WORDS=WORDS, FEW=FEW, BLOCK=block,
    )  # fmt: skip
    rows = min(8, max(1, layout.longest // 512))
    launch(
        count, (pieces(layout.longest, rows), layout.sequences, 1),
        hidden, layout.sequence, workspace.magnitude, workspace.numbers, workspace.bins, workspace.marks,
        layout.first, layout.stop, layout.sizes, *where,
        float(median_ratio), float(min_activation), offset, marked, rows,
        WORDS=WORDS, FEW=FEW, BINS=BINS, BLOCK=block, CHUNK=1024, num_warps=8,
    )  # fmt: skip


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
