"""Files that annotations name: inside the data folder, and with sound or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omnisink.errors import MediaError, OmnisinkError


def find_file(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of several names that is a file in the folder, else the first.

    Parameters
    ----------
    folder : Path
        The data folder, resolved.
    names : sequence of str
        Relative to it.

    Returns
    -------
    Path
        Resolved; it may be missing.

    Raises
    ------
    OmnisinkError
        If a name leaves the folder, by itself or through a symbolic link.
    """
    paths = [_inside(folder, name) for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def _inside(folder: Path, name: str) -> Path:
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte, a loop of links
        raise OmnisinkError(f"{name!r} is no name of a file: {error}") from None
    if Path(name).is_absolute() or not path.is_relative_to(folder):
        raise OmnisinkError(
            f"{name} leaves the data folder; files must lie in it themselves, and a link must not lead out of it"
        )
    return path


def has_sound(path: Path) -> bool:
    """Tell whether a video has sound; one that cannot be opened counts as having it, and fails when it is read."""
    from omnisink.media.files import open_media

    try:
        with open_media(path, None) as container:
            return bool(container.streams.audio)
    except MediaError:
        return True
