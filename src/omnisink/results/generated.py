"""Pages of the documentation with a part that a command writes, between two marker lines."""

from __future__ import annotations

import re
from pathlib import Path

from omnisink.errors import OmnisinkError


def read_marked(path: str | Path, begin: str, end: str, what: str) -> str:
    """Read a page and check that it has both markers, in order.

    Parameters
    ----------
    path : str or Path
        The page.
    begin, end : str
        The marker lines.
    what : str
        What stands between them, for the message.

    Returns
    -------
    str
        The whole page.

    Raises
    ------
    OmnisinkError
        If the page or its markers are missing.
    """
    try:
        page = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OmnisinkError(f"cannot read {path}: {error}") from error
    if not re.search(f"{re.escape(begin)}.*{re.escape(end)}", page, re.S):
        raise OmnisinkError(f"{path} has no place for {what}: the lines '{begin}' and '{end}' are missing")
    return page


def split_marked(page: str, begin: str, end: str) -> tuple[str, str, str]:
    """Return a page before its first marker, between the two, and after the second."""
    before, _, rest = page.partition(begin)
    old, _, after = rest.partition(end)
    return before, old, after
