"""The head of a GGUF file, its settings and the table of its tensors: checked as it is read, as files get damaged.

The package gguf reads it too, and makes an array of each word of the vocabulary: 15 seconds for 150,000 words, where
one pass over the bytes takes less than one.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError

MAGIC = b"GGUF"
#: The first version counted in 32 bits.
_VERSIONS = (2, 3)
_TEXT, _ARRAY = 8, 9
#: The types of settings that have a fixed size, by their numbers.
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
#: Dimensions of a tensor at most, and bytes at least that a setting and an entry of the table take.
_MOST_DIMENSIONS, _LEAST_SETTING, _LEAST_ENTRY = 4, 13, 24


@dataclass(frozen=True)
class Entry:
    """A tensor of the file, as its table describes it.

    Attributes
    ----------
    name : str
        Its name in GGUF, as ``"blk.0.attn_q.weight"``.
    shape : tuple of int
        Its shape in PyTorch's order; GGUF writes the fastest dimension first.
    kind : int
        The number of its type, one of `gguf.GGMLQuantizationType`.
    offset : int
        Its first byte, counted from the first byte of all tensors.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes
    ----------
    path : Path
        The file.
    fields : dict
        Its settings: numbers, texts, and lists of them.
    tensors : dict of str to Entry
        The table of its tensors, in the order of the file.
    start : int
        The first byte of the tensors.
    alignment : int
        Every tensor begins at a multiple of this number of bytes.
    """

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, Entry]
    start: int
    alignment: int


def read_header(path: Path) -> Header:
    """Read the head of a GGUF file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Header
        What it says. That the tensors are all there is not checked here.

    Raises
    ------
    OmnisinkError
        If the file cannot be read, is no GGUF file, is cut off, or says what the format does not allow.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path).header()
    except (OSError, ValueError) as error:  # An empty file cannot be mapped, and is a ValueError.
        raise OmnisinkError(f"{path} cannot be read as a GGUF file: {error}") from error


class _Reader:
    """A place in the bytes of a file, and what is read there."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data, self._path, self._size, self._at = data, path, len(data), 0

    def header(self) -> Header:
        if self._data[:4] != MAGIC:
            raise OmnisinkError(f"{self._path} is not a GGUF file: it does not begin with GGUF")
        self._at = 4
        version = self._number("I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            what = "in the byte order of other machines" if swapped else f"of version {version}"
            raise OmnisinkError(f"{self._path} is a GGUF file {what}; versions 2 and 3, little-endian, are read")
        tensors, settings = self._number("Q"), self._number("Q")
        self._fits(settings, _LEAST_SETTING)
        self._fits(tensors, _LEAST_ENTRY)
        fields: dict[str, Any] = {}
        for _ in range(settings):
            key = self._text()
            if key in fields:
                raise self._wrong(f"it sets {key} twice")
            fields[key] = self._value(self._number("I"))
        table: dict[str, Entry] = {}
        for _ in range(tensors):
            entry = self._entry()
            if entry.name in table:
                raise self._wrong(f"it has two tensors of the name {entry.name}")
            table[entry.name] = entry
        alignment = fields.get("general.alignment", 32)
        if type(alignment) is not int or alignment <= 0:
            raise self._wrong(f"general.alignment is {alignment!r}")
        return Header(self._path, fields, table, -(-self._at // alignment) * alignment, alignment)

    def _entry(self) -> Entry:
        name, dimensions = self._text(), self._number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self._wrong(f"{name} has {dimensions} dimensions")
        shape = self._numbers("Q", dimensions)[::-1]
        return Entry(name, shape, self._number("I"), self._number("Q"))

    def _value(self, kind: int) -> Any:
        if kind in _FIXED:
            return self._number(_FIXED[kind])
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY:
            raise self._wrong(f"a setting has the unknown type {kind}")
        of, count = self._number("I"), self._number("Q")
        if of in _FIXED:
            return list(self._numbers(_FIXED[of], count))
        if of != _TEXT:
            raise self._wrong(f"a setting is a list of the type {of}")
        self._fits(count, 8)
        return [self._text() for _ in range(count)]

    def _number(self, form: str) -> Any:
        return self._numbers(form, 1)[0]

    def _numbers(self, form: str, count: int) -> tuple[Any, ...]:
        at = self._take(struct.calcsize(f"<{form}"), count)
        return struct.unpack_from(f"<{count}{form}", self._data, at)

    def _text(self) -> str:
        at = self._take(8)
        length = int.from_bytes(self._data[at : at + 8], "little")
        at = self._take(length)
        try:
            return self._data[at : at + length].decode()
        except UnicodeDecodeError as error:
            raise self._wrong(f"a text in its head is not in UTF-8: {error}") from error

    def _take(self, size: int, count: int = 1) -> int:
        """Step over some bytes, and return where they begin."""
        self._fits(count, size)
        at = self._at
        self._at += size * count
        return at

    def _fits(self, count: int, size: int) -> None:
        """Refuse what the rest of the file cannot hold, before memory is asked for."""
        if count * size > self._size - self._at:
            raise self._wrong("it ends within its head")

    def _wrong(self, why: str) -> OmnisinkError:
        return OmnisinkError(f"{self._path} is cut off or damaged: {why}")
