"""Functions of the device that detection counts with: values up to a few levels, or sorted into bins.

Magnitudes are compared as the bits of a float32, which are ordered as the numbers are, with NaN above infinity.
"""

from __future__ import annotations

import triton
import triton.language as tl

TOP = tl.constexpr(0x7FFFFFFF)
INFINITY = tl.constexpr(0x7F800000)


@triton.jit
def bin_at(place):
    """Where a bin is kept: neighbours in value, which are used most, lie in different sectors of memory."""
    return (place % 256) * 128 + place // 256


@triton.jit
def size_bits(x):
    """Return the bits of the absolute value of half precision or float32, as an integer."""
    if x.dtype.primitive_bitwidth == 16:
        return x.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    else:
        return x.to(tl.int32, bitcast=True) & TOP


@triton.jit
def from_bits(bits, x):
    """Return the float32 of the bits of a pointer's dtype."""
    if x.dtype.element_ty.primitive_bitwidth == 16:
        return bits.to(tl.int16).to(x.dtype.element_ty, bitcast=True).to(tl.float32)
    else:
        return bits.to(tl.float32, bitcast=True)


@triton.jit
def shift_for(span, BINS: tl.constexpr):
    """By how many bits the numbers from zero to `span` have to be shifted, to be those of bins."""
    shift = 0
    while (span >> shift) >= BINS:
        shift += 1
    return shift


# fmt: off
@triton.jit
def count_levels(
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
def count_bins(
    hidden, bins, sequence, s, begin, end, low, high, least, most, base, shift, length, stride_b, stride_s, width,
    ratio, BINS: tl.constexpr, BLOCK: tl.constexpr,
):
    """Sort a range of tokens into bins where ``ratio * |h|`` is from low to high, and the bits from least to most.

    Returns
    -------
    How many of ``ratio * |h|`` are below low.
    """
    below = tl.zeros((BLOCK,), tl.int32)
    for token in range(begin, end):
        if tl.load(sequence + token) == s:
            row = hidden + (token // length).to(tl.int64) * stride_b + (token % length).to(tl.int64) * stride_s
            for piece in range(0, width, BLOCK):
                at = piece + tl.arange(0, BLOCK)
                x = tl.load(row + at, mask=at < width, other=float("nan"))
                bits = size_bits(x)
                scaled = tl.abs(x.to(tl.float32)) * ratio
                below += (scaled < low).to(tl.int32)
                inside = (scaled >= low) & (scaled <= high) & (bits >= least) & (bits <= most)
                place = tl.minimum(tl.maximum(bits - base, 0) >> shift, BINS - 1)
                tl.atomic_add(bins + bin_at(place), 1, mask=inside, sem="relaxed")
    return tl.sum(below, axis=0)


@triton.jit
def median_bin(bins, below, needed, BINS: tl.constexpr, CHUNK: tl.constexpr):
    """Find the first bin up to which as many as needed are counted, else BINS, and how many are below that bin.

    The bins are zero afterwards.
    """
    found = BINS
    total = below
    before = below
    for start in range(0, BINS, CHUNK):
        place = start + tl.arange(0, CHUNK)
        number = tl.load(bins + bin_at(place), volatile=True)
        tl.store(bins + bin_at(place), tl.zeros((CHUNK,), tl.int32))
        reached = total + tl.cumsum(number.to(tl.int64), axis=0)
        found = tl.minimum(found, tl.min(tl.where(reached >= needed, place, BINS), axis=0))
        before = tl.maximum(before, tl.max(tl.where(reached < needed, reached, below), axis=0))
        total += tl.sum(number.to(tl.int64), axis=0)
    return found, before


@triton.jit
def ends_of(middle, base, shift, BINS: tl.constexpr):
    """Return the smallest and the largest bits that a bin holds; those at either end hold what lies beyond, too."""
    least = tl.where(middle == 0, 0, base + (middle << shift))
    most = tl.where(middle == BINS - 1, INFINITY, base + (middle << shift) + (1 << shift) - 1)
    return least, most
# fmt: on


@triton.jit
def any_between(magnitude, sequence, s, begin, end, floor, failing, holding, CHUNK: tl.constexpr):
    """Whether a candidate's bits are strictly between those that are known to fail and those known to hold."""
    found = 0
    for start in range(begin, end, CHUNK):
        at = start + tl.arange(0, CHUNK)
        m = tl.load(magnitude + at, mask=at < end, other=0.0)
        own = tl.load(sequence + at, mask=at < end, other=-1) == s
        bits = m.to(tl.int32, bitcast=True)
        found += tl.sum((own & (m >= floor) & (bits > failing) & (bits < holding)).to(tl.int32), axis=0)
    return found > 0
