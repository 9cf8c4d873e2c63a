"""How omnisink and its extras are installed: the one place that messages, `omnisink doctor` and the docs follow."""

from __future__ import annotations

from pathlib import Path

#: Whether ``pip install omnisink`` finds this package on an index. While it does not, that name must not be advised:
#: it fails, or one day installs a stranger's package.
ON_INDEX = False


def sources() -> Path | None:
    """Return the folder of sources that runs, or None where an installed copy runs."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else None


def install(*extras: str) -> str:
    """Return the command that installs omnisink with extras.

    Parameters
    ----------
    *extras : str
        Names of extras, as ``"media"``.

    Returns
    -------
    str
        One command for a shell. It names the folder of the sources where they run from one, and else says where to
        run it.
    """
    wanted = f"[{','.join(extras)}]" if extras else ""
    if ON_INDEX:
        return f"pip install 'omnisink{wanted}'"
    if folder := sources():
        return f"pip install -e '{folder}{wanted}'"
    return f"pip install '.{wanted}' (in the folder of omnisink's sources)"
