"""Opening a file, and refusing what is not one, or not whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import MediaError

if TYPE_CHECKING:
    import av.container

#: What FFmpeg reads that is no media file: lists of other files or addresses, and text drawn as pictures.
_REFUSED = {"hls", "concat", "dash", "tty", "bin", "xbin", "adf", "idf", "ffmetadata", "sdp", "rtsp"}
INSTALL = "pip install 'omnisink[media]'"


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
            f"reading video and sound needs PyAV, which is not installed. Install with: {INSTALL}"
        ) from None
    av.logging.set_level(None)
    return av


@contextmanager
def open_media(path: str | Path, max_seconds: float | None) -> Iterator[av.container.InputContainer]:
    """Open a local file for reading; FFmpeg may open nothing else on its behalf.

    Parameters
    ----------
    path : str or Path
        The file.
    max_seconds : float or None
        Longest that is accepted.

    Yields
    ------
    InputContainer
        With at least one video or audio stream.

    Raises
    ------
    MediaError
        If the file is missing, a folder, empty, cut off, not media, or too long.
    """
    av = import_av()
    file = check_file(path)
    try:
        container = av.open(str(file), options={"protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        raise _not_opened(path, file, error) from None
    with container:
        if set(container.format.name.split(",")) & _REFUSED:
            raise MediaError(f"{path}: not a media file but {container.format.long_name}, which is not read")
        if not container.streams.video and not container.streams.audio:
            raise MediaError(f"{path}: has neither video nor sound")
        _check_riff(path, file)
        seconds = duration_of(container)
        if max_seconds is not None and seconds is not None and seconds > max_seconds:
            raise MediaError(f"{path}: lasts {seconds:.0f} s, longer than the limit of {max_seconds:g} s")
        yield container


def check_file(path: str | Path) -> Path:
    """Return the path of a file that is there and not empty.

    Raises
    ------
    MediaError
        If it is not.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise MediaError(f"{path}: is a folder, not a file")
        if not file.is_file():
            raise MediaError(f"{path}: there is no such file")
        if file.stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty")
        with file.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return file


def duration_of(container: av.container.InputContainer) -> float | None:
    """Return how long a file says it lasts, in seconds."""
    return None if container.duration is None else container.duration / 1_000_000


def _check_riff(path: str | Path, file: Path) -> None:
    """Refuse a WAV or AVI file that ends before its header says; FFmpeg silently believes the shorter."""
    with file.open("rb") as opened:
        head = opened.read(8)
    said = int.from_bytes(head[4:8], "little")
    # Programs that write to a pipe leave the size open, as 0 or as the largest number.
    if head[:4] == b"RIFF" and 0 < said < 0xFFFFFF00 and file.stat().st_size + 1 < said + 8:
        raise MediaError(f"{path}: the file is cut off: {file.stat().st_size:,} of {said + 8:,} bytes are there")


def _not_opened(path: str | Path, file: Path, error: Exception) -> MediaError:
    """Tell a file that is cut off from one that never was media."""
    with file.open("rb") as opened:
        head = opened.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return MediaError(f"{path}: the file is cut off: its index (moov) is missing")
    if head[:4] == b"\x1aE\xdf\xa3" or head[:4] == b"RIFF":
        return MediaError(f"{path}: the file is cut off or damaged: it cannot be opened")
    reason = getattr(error, "strerror", None) or str(error)
    return MediaError(f"{path}: not a media file that can be read ({reason})")
