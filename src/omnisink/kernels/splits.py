"""The keys of a decoding step in parts (split-K): into how many they are cut, and how the outputs are put together.

The number follows from what the host knows, the room in the cache, never from what only the device knows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from omnisink.kernels.prepared import Arguments
from omnisink.kernels.sizes import pieces, power_of_two

#: Stands for minus infinity, of which differences could not be taken.
LOWEST = tl.constexpr(-3.0e38)
#: Keys to a part at least: fewer cost more to put together than they gain.
FEWEST = 256
#: Parts at most: one program puts those of a head together.
MOST = 256
#: Programs for each multiprocessor where no group is routed; where most are, some are left for each.
PROGRAMS = 16
_PROCESSORS: dict[int, int] = {}


def number_of_splits(length: int, groups: int, index: int) -> int:
    """Return the number of parts.

    Parameters
    ----------
    length : int
        Keys that there is room for; a sequence may have fewer, and each of its parts is then smaller.
    groups : int
        Sequences times key/value heads.
    index : int
        Of the device on which they are attended to.
    """
    return max(1, min(pieces(length, FEWEST), PROGRAMS * _processors(index) // groups, MOST))


def _processors(index: int) -> int:
    """Return how many multiprocessors a device has."""
    found = _PROCESSORS.get(index)
    if found is None:
        found = 132  # An H100's, for tensors that only say that they are on a GPU.
        if index >= 0 and torch.cuda.is_available():
            found = int(torch.cuda.get_device_properties(index).multi_processor_count)
        _PROCESSORS[index] = found
    return found


# fmt: off
@triton.jit(do_not_specialize=["routed", "tops", "totals", "splits"])
def merge(
    output, routed, parts, tops, totals, splits, groups, width, SPLITS: tl.constexpr, CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    h = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // groups) + h // groups
    if tl.load(routed + group) == 0:
        column = tl.arange(0, WIDTH)
        split = tl.arange(0, SPLITS)
        first = group * splits * groups + h % groups
        top = tl.load(tops + first + split * groups, mask=split < splits, other=LOWEST)
        total = tl.load(totals + first + split * groups, mask=split < splits, other=0.0)
        # A part without a key has no say; NaN does.
        top = tl.where(total == 0, LOWEST, top)
        highest = tl.max(top, axis=0)
        whole = tl.sum(tl.where(total == 0, 0.0, total * tl.exp(top - highest)), axis=0)
        mixed = tl.zeros((WIDTH,), tl.float32)
        for begin in range(0, splits, CHUNK):
            some = begin + tl.arange(0, CHUNK)
            place = first + some * groups
            number = tl.load(totals + place, mask=some < splits, other=0.0)
            used = number != 0
            share = tl.where(used, tl.exp(tl.load(tops + place, mask=used, other=LOWEST) - highest), 0.0)
            rows = parts + place[:, None] * width + column[None, :]
            rows = tl.load(rows, mask=used[:, None] & (column < width)[None, :], other=0.0)
            mixed += tl.sum(rows * share[:, None], axis=0)
        mixed = mixed / tl.where(whole == 0, 1.0, whole)
        place = (tl.program_id(1).to(tl.int64) * tl.num_programs(0) + h) * width + column
        tl.store(output + place, mixed.to(output.dtype.element_ty), mask=column < width)
# fmt: on


def merging(output: Tensor, kv_heads: int, splits: int) -> Arguments:
    """Return how `merge` is launched to write `output` (B, H, 1, D'), but for what only routed groups keep."""
    batch, heads, _, width = output.shape
    wide = max(16, power_of_two(width))
    constants = {"SPLITS": MOST, "CHUNK": 4096 // wide, "WIDTH": wide, "num_warps": 4}
    return merge, (heads, batch, 1), (splits, heads // kv_heads, width), constants
