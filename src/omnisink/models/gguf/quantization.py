"""From the blocks of a GGUF file to ordinary weights, with the formulas of the package gguf."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.models.gguf.header import Entry, Header

#: Values that are unpacked at once; what is between the file and the weights takes a few times their memory.
_AT_ONCE = 2**23


def name_of(kind: int) -> str:
    """Return the name of a type, as ``"Q4_K"``."""
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType(kind).name


def check_tensors(header: Header) -> None:
    """Refuse tensors of a type that is not read, and those that do not lie where the format puts them.

    Raises
    ------
    OmnisinkError
        It names the tensor, and its type where that is the reason.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    known = {kind.value for kind in GGMLQuantizationType}
    expected = 0
    for entry in header.tensors.values():
        if entry.kind not in known or not _is_read(entry.kind):
            name = name_of(entry.kind) if entry.kind in known else f"number {entry.kind}"
            raise OmnisinkError(
                f"{header.path} cannot be loaded: {entry.name} is of the type {name}, which the package gguf does not "
                "unpack. A newer release of it may; or take the model in another quantization, as Q4_K_M or Q8_0"
            )
        block = GGML_QUANT_SIZES[GGMLQuantizationType(entry.kind)][0]
        if entry.shape[-1] % block:
            raise _damaged(header, f"the rows of {entry.name} are of {entry.shape[-1]} values, not of whole blocks")
        # Tensors follow one another, so that a wrong offset cannot give one the values of another.
        if entry.offset != expected:
            raise _damaged(header, f"{entry.name} is not where the tensor before it ends")
        expected += -(-byte_size(entry) // header.alignment) * header.alignment
    size = header.path.stat().st_size
    for entry in header.tensors.values():
        if (end := header.start + entry.offset + byte_size(entry)) > size:
            raise _damaged(header, f"{entry.name} ends at byte {end:,d}, and the file at {size:,d}")


def byte_size(entry: Entry) -> int:
    """Return how many bytes a tensor takes in the file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(entry.kind)]
    return math.prod(entry.shape) // block * size


def own_dtype(header: Header) -> torch.dtype:
    """Return the type of a file's values: half precision if some are stored so, and float32 of quantized ones."""
    names = {name_of(entry.kind) for entry in header.tensors.values()}
    if names <= {"F32", "F16", "BF16"}:
        return torch.bfloat16 if "BF16" in names else torch.float16 if "F16" in names else torch.float32
    return torch.float32


def pieces(entry: Entry) -> Iterator[slice]:
    """Cut the rows of a tensor in pieces that are unpacked at once."""
    rows = math.prod(entry.shape[:-1])
    step = max(1, _AT_ONCE // max(1, entry.shape[-1]))
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))


def unpack(data: NDArray[np.uint8], header: Header, entry: Entry, rows: slice, out: Tensor, shift: float) -> None:
    """Unpack some rows of a tensor.

    Parameters
    ----------
    data : ndarray of uint8
        The whole file.
    header, entry : Header, Entry
        The file's head, and the tensor.
    rows : slice
        Rows of the tensor, its dimensions but the last taken as one.
    out : Tensor, the tensor's shape, floating point
        Where the values are written.
    shift : float
        Added to every value, in float32.
    """
    from gguf import GGMLQuantizationType, dequantize

    total = math.prod(entry.shape[:-1])
    start = header.start + entry.offset
    stored = data[start : start + byte_size(entry)].reshape(total, -1)[rows]
    with np.errstate(all="ignore"):  # Damaged blocks may be infinite; answers that are not finite are noticed later.
        values = dequantize(np.ascontiguousarray(stored), GGMLQuantizationType(entry.kind))
    found = torch.from_numpy(np.require(values, requirements="W")).view(-1, entry.shape[-1])
    out.view(total, -1)[rows] = found + shift if shift else found


def read_tensor(header: Header, name: str) -> Tensor:
    """Return one small tensor in float32."""
    entry = header.tensors[name]
    out = torch.empty(entry.shape, dtype=torch.float32)
    data = np.memmap(header.path, np.uint8, "r")
    for rows in pieces(entry):
        unpack(data, header, entry, rows, out, 0.0)
    return out


def _is_read(kind: int) -> bool:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    one: Any = GGMLQuantizationType(kind)
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[one][1]), np.uint8), one)
    except NotImplementedError:
        return False
    return True


def _damaged(header: Header, why: str) -> OmnisinkError:
    return OmnisinkError(f"{header.path} is cut off or damaged: {why}")
