"""Reading what others may have changed: whole files of a bounded size, and JSON of a bounded depth."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any, NoReturn

from omnisink.errors import OmnisinkError

#: Bytes of the largest file that is read whole. Records of the largest runs take a tenth of it.
LARGEST = 2**31
#: How deeply lists and objects may lie in one another. What omnisink writes has a depth of about ten.
DEEPEST = 100


def read_whole(path: str | Path, largest: int = LARGEST) -> bytes:
    """Read a regular file.

    Parameters
    ----------
    path : str or Path
        The file.
    largest : int
        Bytes; a larger file is refused.

    Returns
    -------
    bytes
        All of it.

    Raises
    ------
    OmnisinkError
        If it is not there, is a folder or a device, is too large, or cannot be read.
    """
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):
            raise OSError(
                errno.EINVAL, f"it is a {'folder' if stat.S_ISDIR(mode) else 'device or a pipe'}, not a file"
            )
    except (OSError, ValueError) as error:  # A path with a zero byte is a ValueError.
        raise OmnisinkError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return read_bounded(path, largest)


def read_bounded(path: str | Path, largest: int) -> bytes:
    """Read a file or a pipe, as `read_whole`; one that is larger or endless is refused after `largest` bytes."""
    try:
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except (OSError, ValueError) as error:
        raise OmnisinkError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > largest:
        raise OmnisinkError(f"{path}: cannot be read: it is larger than {largest:,d} bytes, or has no end")
    return content


def parse_json(content: str | bytes, what: str | Path) -> Any:
    """Read JSON as the standard has it: without NaN and infinities, and not deeper than `DEEPEST`.

    Parameters
    ----------
    content : str or bytes
        The JSON; bytes are UTF-8.
    what : str or Path
        What it is or where it stands, with which an error begins.

    Returns
    -------
    object
        The data.

    Raises
    ------
    OmnisinkError
        If it is not JSON.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise OmnisinkError(f"{what}: it is not JSON: {' '.join(reason.split())[:200]}") from None
    if _deeper(data, DEEPEST):
        raise OmnisinkError(f"{what}: it is not JSON: lists and objects lie more than {DEEPEST} deep in one another")
    return data


def parse_object(content: str | bytes, what: str | Path) -> dict[str, Any]:
    """Read a JSON object; arguments and errors as for `parse_json`."""
    data = parse_json(content, what)
    if not isinstance(data, dict):
        raise OmnisinkError(f"{what}: not a JSON object but {type(data).__name__}")
    return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def _deeper(data: Any, depth: int) -> bool:
    """Return whether something lies deeper than `depth` levels; level by level, so that any depth can be checked."""
    level = [data] if isinstance(data, dict | list) else []
    for _ in range(depth):
        inner = (value for outer in level for value in (outer.values() if isinstance(outer, dict) else outer))
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return False
    return True
