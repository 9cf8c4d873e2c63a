"""Which GGUF file a name stands for."""

from __future__ import annotations

from pathlib import Path

from omnisink.errors import OmnisinkError
from omnisink.models.hub import has_weights

_SUFFIX = ".gguf"
#: File names that an error lists.
_LISTED = 6


def find_gguf(name: str | Path) -> Path | None:
    """Return the GGUF file that a name stands for: itself, or the one in a folder.

    Parameters
    ----------
    name : str or Path
        As for `omnisink.models.loading.load_model`.

    Returns
    -------
    Path or None
        None where the name is of something else: a folder with safetensors, which go first, or a name on the Hub.

    Raises
    ------
    OmnisinkError
        If a GGUF file is named and is not there, or a folder holds several.
    """
    path = Path(name).expanduser()
    named = path.suffix.lower() == _SUFFIX
    if path.is_file():
        return path if named else None
    if path.is_dir():
        return None if has_weights(path) else _only(path)
    if named:
        raise OmnisinkError(f"there is no file {name}")
    return None


def _only(folder: Path) -> Path | None:
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() == _SUFFIX and file.is_file())
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
        raise OmnisinkError(
            f"{folder} holds {len(found)} GGUF files: {names}. Name the one that is meant, as {found[0]}"
        )
    return found[0] if found else None
