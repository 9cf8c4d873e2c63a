"""Arrays in files of others: nothing is unpickled, and sizes are checked before memory is taken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError, shown

#: Bytes of all arrays of a file at most.
LARGEST_ARRAYS = 2**33


def read_arrays(path: Path, what: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of an ``.npz`` file, whose sizes are checked before anything of that size is made.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What an error begins with, as ``"calibration.npz is not a calibration"``.

    Returns
    -------
    dict of str to ndarray
        The arrays by name; nothing is unpickled.

    Raises
    ------
    OmnisinkError
        If it cannot be read, holds something else, or more than `LARGEST_ARRAYS` bytes.
    """
    try:
        with ZipFile(path) as packed:
            total = sum(entry.file_size for entry in packed.infolist())
        if total > LARGEST_ARRAYS:
            raise OmnisinkError(f"{what}: its arrays take {total:,d} bytes, and {LARGEST_ARRAYS:,d} are read at most")
        with np.load(path, allow_pickle=False) as file:
            # A header can claim any size; an entry that is too short for it is an error before memory is taken.
            for name in file.files:
                _check_header(file, name, what)
            return {name: file[name] for name in file.files}
    except OmnisinkError:
        raise
    except (MemoryError, Exception) as error:  # zipfile, zlib and numpy have a dozen kinds between them.
        raise OmnisinkError(f"{what}: {type(error).__name__}: {error}") from error


def _check_header(file: Any, name: str, what: str) -> None:
    entry = f"{name}.npy"
    with file.zip.open(entry) as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(opened)
        held = file.zip.getinfo(entry).file_size - opened.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != held:
        raise OmnisinkError(
            f"{what}: the header of {shown(name)} claims {shape} of {dtype}, and holds {held:,d} bytes"
        )
