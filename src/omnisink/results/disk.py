"""Writing to the disk so that nothing is lost, and one process at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from omnisink.errors import OmnisinkError

_LOCK = "run.lock"


def lock_run(folder: Path) -> FileLock:
    """Make the folder and take its lock, which the system lets go of when the process ends, however it ends."""
    with os_errors_named(folder, "made or locked"):
        lock = FileLock(folder / _LOCK, thread_local=False)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OmnisinkError(f"{folder}: another process is writing this run; wait for it, or end it") from None
    return lock


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that cannot be made or written to, before minutes of work end there; it is not made.

    Raises
    ------
    OmnisinkError
        If it, or the first of the folders above it that is there, takes no file: it is closed, read-only, full, or
        not a folder.
    """
    path = Path(folder)
    with os_errors_named(path, "made or written to"):
        if "\0" in str(path):  # The system's own questions about it would say that nothing is there.
            raise ValueError("no path has a zero byte in it")
        place = path.absolute()
        while not os.path.lexists(place):
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(20, f"{place} is not a folder")
        # What the rights say is not the whole truth: a file system can be read-only, or full.
        with tempfile.TemporaryFile(dir=place) as tried:
            write(tried, b"x" * 4096)


def write(file: BinaryIO, content: bytes) -> None:
    """Write all of it, and return once it is on the disk."""
    written = 0
    while written < len(content):
        written += file.write(content[written:])
    os.fsync(file.fileno())


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    with os_errors_named(path, "written"):
        part = path.with_suffix(".part")
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


def in_place(file: BinaryIO, path: Path) -> bool:
    """Return whether a path still leads to a file that is open."""
    try:
        there = os.stat(path)
    except OSError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), there)


def rescue(file: BinaryIO, path: Path, beside: dict[str, bytes]) -> Path | None:
    """Copy an open file whose path is gone into a new folder beside the old one.

    Parameters
    ----------
    file : binary file
        Open for reading; where it has been removed, what it holds is lost when it is closed.
    path : Path
        Where it was.
    beside : dict of str to bytes
        What else is written into the new folder, by name.

    Returns
    -------
    Path or None
        The new folder; None where none could be made, or where the file is still somewhere else.
    """
    if os.fstat(file.fileno()).st_nlink > 0:
        return None
    folder = path.parent
    while not folder.parent.exists():  # A whole tree may be gone: beside the part of it that still has a place.
        folder = folder.parent
    try:
        file.seek(0)
        content = file.read()
        for number in range(1, 100):
            made = folder.with_name(f"{folder.name}-rescued-{number}")
            try:
                made.mkdir()
            except FileExistsError:
                continue
            for name, text in {**beside, path.name: content}.items():
                atomic_write(made / name, text)
            return made
    except (OSError, OmnisinkError):
        pass  # The disk is gone, or full: nothing more can be done than to say so.
    return None


@contextmanager
def os_errors_named(path: str | Path, verb: str) -> Iterator[None]:
    """Turn an error of the system into one that names the file; a path that no file can have is one too."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OmnisinkError(f"{path} could not be {verb}: {reason}") from error
