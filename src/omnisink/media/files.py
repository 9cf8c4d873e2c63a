"""Opening a file, and refusing what is not one, or not whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import MediaError
from omnisink.extras import install
from omnisink.media.heads import CONTAINERS, expected_size, is_motion_jpeg, refused_kind

if TYPE_CHECKING:
    import av.container


def import_av() -> Any:
    """Return PyAV.

    Raises
    ------
    MediaError
        If it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MediaError(
            f"reading video and sound needs PyAV, which is not installed. Install with: {install('media')}"
        ) from None
    av.logging.set_level(None)
    return av


@contextmanager
def open_media(path: str | Path, max_seconds: float | None) -> Iterator[av.container.InputContainer]:
    """Open a local video or sound file for reading; FFmpeg may open nothing else on its behalf.

    Parameters
    ----------
    path : str or Path
        The file. Still and moving pictures that Pillow reads are not read here.
    max_seconds : float or None
        Longest that is accepted.

    Yields
    ------
    InputContainer
        With at least one video or audio stream.

    Raises
    ------
    MediaError
        If the file is missing, a folder, empty, cut off, not media, or too long; also if FFmpeg fails while it is
        read.
    """
    av = import_av()
    file = check_file(path)
    with file_faults(path):
        container = _open(av, path, file)
        with container:
            if not container.streams.video and not container.streams.audio:
                raise MediaError(f"{path}: has neither video nor sound")
            said, there = expected_size(file), file.stat().st_size
            if said is not None and there + 1 < said:
                raise MediaError(f"{path}: the file is cut off: {there:,} of {said:,} bytes are there")
            seconds = duration_of(container)
            if max_seconds is not None and seconds is not None and seconds > max_seconds:
                raise MediaError(f"{path}: lasts {seconds:.0f} s, longer than the limit of {max_seconds:g} s")
            yield container


@contextmanager
def file_faults(path: str | Path) -> Iterator[None]:
    """Turn what FFmpeg, the disk and a lack of memory raise while a file is read into a `MediaError` that names it."""
    av = import_av()
    try:
        yield
    except av.error.FFmpegError as error:
        raise MediaError(f"{path}: the file is damaged: {_reason(error)}") from None
    except MemoryError:
        raise MediaError(f"{path}: reading it needs more memory than there is") from None
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {_reason(error)}") from None


def check_file(path: str | Path) -> Path:
    """Return the path of a regular file that is there and not empty.

    Raises
    ------
    MediaError
        If it is not. A pipe or a device is refused: it may keep its reader waiting for ever.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise MediaError(f"{path}: is a folder, not a file")
        if not file.exists():
            raise MediaError(f"{path}: there is no such file")
        if not file.is_file():
            raise MediaError(f"{path}: is a pipe or a device, not a file")
        if file.stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty")
        with file.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be read: {_reason(error)}") from None
    return file


def duration_of(container: av.container.InputContainer) -> float | None:
    """Return how long a file says it lasts, in seconds."""
    return None if container.duration is None else container.duration / 1_000_000


def _open(av: Any, path: str | Path, file: Path) -> av.container.InputContainer:
    """Hand FFmpeg an open file, and neither a name nor a protocol by which it could open another.

    A name would be searched for protocols ("10:30.mp4") and patterns ("take%d.png"), and its ending would be believed.
    """
    with file.open("rb", buffering=0) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise MediaError(f"{path}: is a pipe or a device, not a file")
        head = opened.read(512)
        kind = refused_kind(head)
        if kind is not None:
            raise MediaError(f"{path}: not a media file but {kind}, which is not read")
        opened.seek(0)
        # FFmpeg distinguishes a stream of JPEG frames from one JPEG only by the name.
        known = "mjpeg" if is_motion_jpeg(opened) else None
        opened.seek(0)
        options = {"fd": str(opened.fileno()), "protocol_whitelist": "fd", "format_whitelist": CONTAINERS}
        try:
            # Tags of old encoders are not always UTF-8, and none of them is used.
            return av.open("fd:", format=known, options=options, metadata_errors="ignore")
        except av.error.FFmpegError as error:
            raise _not_opened(path, head, error) from None


def _not_opened(path: str | Path, head: bytes, error: Exception) -> MediaError:
    """Tell a file that is cut off from one that never was media."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return MediaError(f"{path}: the file is cut off: its index (moov) is missing")
    if head[:4] == b"\x1aE\xdf\xa3" or head[:4] == b"RIFF":
        return MediaError(f"{path}: the file is cut off or damaged: it cannot be opened")
    return MediaError(f"{path}: not a media file that can be read ({_reason(error)})")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
