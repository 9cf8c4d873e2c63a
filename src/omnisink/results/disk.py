"""Writing to the disk so that nothing is lost, and one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from omnisink.errors import OmnisinkError

_LOCK = "run.lock"


def hold(folder: Path) -> FileLock:
    """Make the folder and take its lock, which the system lets go of when the process ends, however it ends."""
    lock = FileLock(folder / _LOCK, thread_local=False)
    with told(folder, "made or locked"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OmnisinkError(f"{folder}: another process is writing this run; wait for it, or end it") from None
    return lock


def write(file: BinaryIO, content: bytes) -> None:
    """Write all of it, and return once it is on the disk."""
    written = 0
    while written < len(content):
        written += file.write(content[written:])
    os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    part = path.with_suffix(".part")
    with told(path, "written"):
        with part.open("wb", buffering=0) as file:
            write(file, content)
        part.replace(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names of new files to the disk, where the system has a way to."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def told(path: Path, verb: str) -> Iterator[None]:
    """Turn an error of the system into one that names the file."""
    try:
        yield
    except OSError as error:
        raise OmnisinkError(f"{path} could not be {verb}: {error.strerror or error}") from error
