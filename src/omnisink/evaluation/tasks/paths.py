"""Files that annotations name: inside the data folder, and with sound or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omnisink.errors import MediaError, OmnisinkError


class StrayLinkError(OmnisinkError):
    """A link in the data folder leads out of it.

    Attributes
    ----------
    link : str
        The link, relative to the folder.
    """

    def __init__(self, link: str) -> None:
        super().__init__(
            f"the link {link} leaves the data folder; files must lie in it themselves, and no link may lead out of it"
        )
        self.link = link


def is_file(path: Path) -> bool:
    """Return whether there is a file of a name, which may be too long for one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


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
    StrayLinkError
        If a symbolic link leads out of the folder.
    OmnisinkError
        If a name leaves the folder by itself, or is none.
    """
    paths = [_inside(folder, name) for name in names]
    return next((path for path in paths if is_file(path)), paths[0])


def _inside(folder: Path, name: str) -> Path:
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte, a loop of links
        raise OmnisinkError(f"{name!r} is not the name of a file: {error}") from None
    if path.is_relative_to(folder) and not Path(name).is_absolute():
        return path
    if not Path(name).is_absolute() and ".." not in Path(name).parts:
        here = folder
        for part in Path(name).parts:
            here /= part
            if not here.resolve().is_relative_to(folder):
                raise StrayLinkError(here.relative_to(folder).as_posix())
    raise OmnisinkError(
        f"{name} leaves the data folder; files must lie in it themselves, and a link must not lead out of it"
    )


def has_sound(path: Path) -> bool:
    """Return whether a video has sound; one that cannot be opened counts as having it, and fails when it is read."""
    from omnisink.media.kind import contents_of

    try:
        return contents_of(path).sound
    except MediaError:
        return True
