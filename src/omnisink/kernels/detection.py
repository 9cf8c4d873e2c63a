"""Which tokens are sinks by the massive-activation rule: exactly, in two launches, whatever the prompt.

`scan` reads the residual stream once: the largest activation of every token, and for each sequence the smallest and
the largest of those that reach the floor (its candidates). `count` reads it again only where a sequence has a
candidate. It asks the rule's question, how many ``r * |h|`` are at most m, for a few levels m between the smallest and
the largest candidate. The rule is monotone in m, so one level settles a sequence with one candidate, and a candidate
is left open only if it lies between the last level that fails and the first that holds. The program of a sequence that
is the last to finish looks for such candidates, goes on counting for levels between them by itself (rare, slower, and
just as exact), and marks the sinks.

Magnitudes are compared as the bits of a float32, which are ordered as the numbers are, with NaN above infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.launch import launch
from omnisink.kernels.layout import Layout

#: Levels that are counted for at a time where there are few candidates, and where there are many.
FEW, LEVELS = 8, 32
#: Candidates up to which there are few.
MANY = 16
#: Integers kept for a sequence at a layer: five of the first eight, then the counts for every level.
WORDS = 8 + LEVELS
#: The largest bits of a candidate; their distance from INF_TOP, for the smallest; how many; programs done; not finite.
_HIGH, _LOW, _NUMBER, _DONE, _NOT_FINITE = (tl.constexpr(i) for i in range(5))
_COUNTS = tl.constexpr(8)
_TOP = tl.constexpr(0x7FFFFFFF)
_INFINITY = tl.constexpr(0x7F800000)


@dataclass(frozen=True)
class Workspace:
    """What detection needs beside the residual stream; made once for a prefill, and used by all of its layers.

    Attributes
    ----------
    layout : Layout
        The sequences.
    numbers : Tensor
        (layers, n, WORDS) int64, zero at first.
    magnitude : Tensor
        (layers, tokens) float32, the largest activation of each token; zero at padding.
    marks : Tensor
        (layers, tokens) int8, zero at first, one at sinks.
    sinks : tuple of Tensor
        The marks of each layer, as (B, S) bool.
    magnitudes : tuple of Tensor
        The magnitudes of each layer, as (B, S).
    """

    layout: Layout
    numbers: Tensor
    magnitude: Tensor
    marks: Tensor
    sinks: tuple[Tensor, ...]
    magnitudes: tuple[Tensor, ...]

    @classmethod
    def of(cls, layout: Layout, layers: int) -> Workspace:
        """Make room for so many layers."""
        device = layout.sequence.device
        marks = torch.zeros(layers, layout.tokens, dtype=torch.int8, device=device)
        magnitude = torch.zeros(layers, layout.tokens, dtype=torch.float32, device=device)
        return cls(
            layout,
            torch.zeros(layers, layout.sequences, WORDS, dtype=torch.int64, device=device),
            magnitude,
            marks,
            marks.view(torch.bool).view(layers, -1, layout.length).unbind(0),
            magnitude.view(layers, -1, layout.length).unbind(0),
        )

    @property
    def not_finite(self) -> Tensor:
        """(layers, n) bool, where a token's residual stream has held NaN or infinity."""
        return self.numbers[:, :, _NOT_FINITE.value] > 0


# fmt: off
@triton.jit(do_not_specialize=["length", "offset", "marked"])
def scan(
    hidden, sequence, magnitude, numbers, length, stride_b, stride_s, width, floor, offset, marked,
    WORDS: tl.constexpr, BLOCK: tl.constexpr,
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
        tl.atomic_max(own + _HIGH, bits.to(tl.int64))
        tl.atomic_max(own + _LOW, -bits.to(tl.int64) + _TOP)
        tl.atomic_add(own + _NUMBER, 1)
    if bits >= _INFINITY:
        tl.atomic_max(numbers + offset + s.to(tl.int64) * WORDS + _NOT_FINITE, 1)
# fmt: on


@triton.jit
def _level(low, high, number, j):
    """Bits of the j-th of so many levels from the lowest to the highest."""
    return tl.where(j == number - 1, high, low + (high - low) // tl.maximum(number - 1, 1) * j)


# fmt: off
@triton.jit
def _count(
    hidden, sequence, s, begin, end, low, high, number, length, stride_b, stride_s, width, ratio,
    LEVELS: tl.constexpr, BLOCK: tl.constexpr,
):
    """How many of a sequence's ``ratio * |h|`` are at most each level, in a range of tokens."""
    slots = tl.arange(0, LEVELS)
    found = tl.zeros((LEVELS,), tl.int64)
    for token in range(begin, end):
        if tl.load(sequence + token) == s:
            row = hidden + (token // length).to(tl.int64) * stride_b + (token % length).to(tl.int64) * stride_s
            for piece in range(0, width, BLOCK):
                at = piece + tl.arange(0, BLOCK)
                x = tl.load(row + at, mask=at < width, other=float("nan")).to(tl.float32)
                x = tl.abs(x) * ratio
                for j in range(number):
                    level = _level(low, high, number, j).to(tl.float32, bitcast=True)
                    found += tl.where(slots == j, tl.sum((x <= level).to(tl.int32), axis=0), 0)
    return found
# fmt: on


@triton.jit
def _narrow(counts, needed, low, high, number, holding, failing, LEVELS: tl.constexpr):
    """Find the lowest level that holds and the highest that fails, now that others between have been counted."""
    slots = tl.arange(0, LEVELS)
    levels = _level(low, high, number, slots)
    known = slots < number
    holding = tl.minimum(holding, tl.min(tl.where(known & (counts >= needed), levels, _TOP), axis=0))
    failing = tl.maximum(failing, tl.max(tl.where(known & (counts < needed), levels, 0), axis=0))
    return holding, failing


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
    hidden, sequence, magnitude, numbers, sinks, first, stop, sizes, length, stride_b, stride_s, width, ratio, floor,
    offset, marked, rows, WORDS: tl.constexpr, FEW: tl.constexpr, LEVELS: tl.constexpr, MANY: tl.constexpr,
    BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):
    s = tl.program_id(1)
    own = numbers + offset + s.to(tl.int64) * WORDS
    magnitude += marked.to(tl.int64)
    high = tl.load(own + _HIGH).to(tl.int32)
    begin = tl.load(first + s)
    end = tl.load(stop + s)
    start = begin + tl.program_id(0) * rows
    if (high > 0) & (start < end):
        low = -tl.load(own + _LOW).to(tl.int32) + _TOP
        number = tl.where(tl.load(own + _NUMBER) > MANY, LEVELS, FEW)
        number = tl.where(low == high, 1, number)
        slots = tl.arange(0, LEVELS)
        found = _count(
            hidden, sequence, s, start, tl.minimum(start + rows, end), low, high, number, length, stride_b, stride_s,
            width, ratio, LEVELS, BLOCK,
        )
        tl.atomic_add(own + _COUNTS + slots, found, mask=slots < number)
        tl.debug_barrier()  # Every thread's counts are out before the program says that it is done.
        done = tl.atomic_add(own + _DONE, 1)
        if done == tl.cdiv(end - begin, rows) - 1:
            # Nobody waits for anybody: the last one to come finds all the counts.
            needed = (tl.load(sizes + s).to(tl.int64) * width + 1) // 2
            counts = tl.load(own + _COUNTS + slots, mask=slots < number, other=0, volatile=True)
            holding, failing = _narrow(counts, needed, low, high, number, _TOP, 0, LEVELS)
            low, high = _between(magnitude, sequence, s, begin, end, floor, failing, holding, CHUNK)
            while low <= high:
                number = tl.where(low == high, 1, FEW)
                counts = _count(
                    hidden, sequence, s, begin, end, low, high, number, length, stride_b, stride_s, width, ratio,
                    LEVELS, BLOCK,
                )
                holding, failing = _narrow(counts, needed, low, high, number, holding, failing, LEVELS)
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
    block = min(4096, triton.next_power_of_2(width))
    offset, marked = layer * layout.sequences * WORDS, layer * layout.tokens
    stride_b, stride_s = hidden.stride(0), hidden.stride(1)
    where = (layout.length, stride_b, stride_s, width)
    launch(
        scan, (layout.tokens, 1, 1),
        hidden, layout.sequence, workspace.magnitude, workspace.numbers, *where, float(min_activation), offset,
        marked, WORDS=WORDS, BLOCK=block,
    )  # fmt: skip
    rows = min(8, max(1, layout.longest // 512))
    launch(
        count, (triton.cdiv(layout.longest, rows), layout.sequences, 1),
        hidden, layout.sequence, workspace.magnitude, workspace.numbers, workspace.marks,
        layout.first, layout.stop, layout.sizes, *where,
        float(median_ratio), float(min_activation), offset, marked, rows,
        WORDS=WORDS, FEW=FEW, LEVELS=LEVELS, MANY=MANY, BLOCK=block, CHUNK=1024, num_warps=8,
    )  # fmt: skip


def sinks_of(hidden: Tensor, real: Tensor | None, *, min_activation: float, median_ratio: float) -> Tensor:
    """Find the sinks of one layer by itself, without a workspace; see `find_sinks`.

    Parameters
    ----------
    hidden : Tensor
        Residual stream, (B, S, d).
    real : Tensor or None
        (B, S) bool, False at padding; None where every token is real.
    min_activation, median_ratio : float
        Thresholds.

    Returns
    -------
    Tensor
        (B, S) bool.
    """
    workspace = Workspace.of(Layout.of_batch(hidden.shape[0], hidden.shape[1], real, hidden.device), 1)
    find_sinks(hidden, workspace, 0, min_activation=min_activation, median_ratio=median_ratio)
    return workspace.sinks[0]
