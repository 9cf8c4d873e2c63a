"""Checkpoints of the Hub: in its local cache, or fetched when a download is asked for."""

from __future__ import annotations

from pathlib import Path

from omnisink.errors import OmnisinkError

#: What is fetched of a repository. Pickled weights can run code when they are read, so they are left where they are.
_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "*.tiktoken"]
#: Subfolders and `consolidated` files repeat the weights in formats that transformers does not read.
_NOT_FILES = ["*/*", "consolidated*"]


def find_cached(name: str, revision: str | None = None) -> Path | None:
    """Return the snapshot of a repository in the local cache; None if there is none.

    Parameters
    ----------
    name : str
        The repository, as ``owner/name``.
    revision : str, optional
        Branch, tag or commit; None is the main branch.

    Returns
    -------
    Path or None
        A folder named by its commit.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # Not there, or no name of a repository.
        return None


def require(name: str, revision: str | None, *, download: bool, with_code: bool) -> Path:
    """Return the snapshot of a repository, fetched first if that is allowed.

    Parameters
    ----------
    name : str
        The repository, as ``owner/name``.
    revision : str or None
        Branch, tag or commit; None is the main branch.
    download : bool
        Use the network.
    with_code : bool
        Fetch the Python files too.

    Returns
    -------
    Path
        A folder named by its commit.

    Raises
    ------
    OmnisinkError
        If it is not in the cache, or cannot be fetched.
    """
    if download:
        return _fetch(name, revision, [*_FILES, "*.py"] if with_code else _FILES)
    folder = find_cached(name, revision)
    if folder is None:
        which = f"{name} at revision {revision}" if revision else name
        raise OmnisinkError(
            f"{which} is neither a folder nor in the local Hub cache. "
            "To fetch it from the Hub, allow the network: download=True, or --download on the command line"
        )
    return folder


def has_weights(folder: Path | None) -> bool:
    """Tell whether a folder holds weights in safetensors."""
    return folder is not None and any(folder.glob("*.safetensors"))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _fetch(name: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, ignore_patterns=_NOT_FILES))
    except (OSError, ValueError) as error:
        raise OmnisinkError(f"{name} could not be fetched from the Hub: {first_line(error)}") from error
