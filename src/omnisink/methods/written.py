"""Methods as a user writes them, cut into names and settings: ``baseline,outro:gamma=3+vcd:alpha=0.5``.

Commas stand between the methods of a list, plus signs between those that act at once, and colons before the presets
and settings of one. A plus sign may stand in a setting too.
"""

from __future__ import annotations

import typing
from collections.abc import Callable

from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.names import BASELINE, BUILT_IN, IN_FILE, outside_methods
from omnisink.methods.settings import field_types, split_outside

#: What stands between the methods of a composition, and between several values of one setting.
AND = "+"

KindOf = Callable[[str], type[Method]]


def split_list(text: str, separator: str) -> list[str]:
    """Cut a text at a separator, outside brackets and quotation marks.

    Raises
    ------
    OmnisinkError
        If brackets or quotation marks are not closed.
    """
    try:
        return list(split_outside(text, separator))
    except ValueError as error:
        raise OmnisinkError(f"the methods cannot be read: {error}") from None


def head_and_parts(name: str) -> tuple[str, list[str]]:
    """Divide the name of one method from what follows it; the path of a file may hold colons of its own."""
    path, in_file, rest = name.partition(IN_FILE)
    head, *parts = split_list(rest if in_file else name, ":")
    return (f"{path}{IN_FILE}{head}" if in_file else head), [part for part in parts if part]


def split_composed(text: str, kind_of: KindOf) -> list[str]:
    """Cut the name of a composition into those of its methods.

    A plus sign in brackets or quotation marks belongs to a value. So it does in a number, as 1e+3; in the path of a
    file; and in a setting that takes several values, where what follows is not the name of a method.

    Parameters
    ----------
    text : str
        As a user wrote it.
    kind_of : callable
        From the name of a method to its class; raises an `OmnisinkError` where there is none.

    Returns
    -------
    list of str
        One or more names, with surrounding blanks removed.

    Raises
    ------
    OmnisinkError
        If brackets or quotation marks are not closed, a name is missing, or a method is not there whose setting has
        to be looked at.
    """
    found: list[str] = []
    pieces = split_list(text, AND)
    known = {BASELINE, *BUILT_IN, *(one.name for one in outside_methods())} if len(pieces) > 1 else set()
    for piece in pieces:
        begins = IN_FILE in piece or piece.partition(":")[0] in known
        if found and (_is_path(found[-1], piece, known) or (not begins and _goes_on(found[-1], piece, kind_of))):
            found[-1] += AND + piece
        else:
            found.append(piece)
    if "" in found and len(found) > 1:
        raise OmnisinkError(f"{text}: a method is missing beside {AND}")
    return found


def _is_path(before: str, piece: str, known: set[str]) -> bool:
    """Whether a piece ends the path of a file that has a plus sign in it."""
    return IN_FILE in piece and IN_FILE not in before and before.partition(":")[0] not in known


def _goes_on(before: str, piece: str, kind_of: KindOf) -> bool:
    """Whether a piece that is not the name of a method belongs to the setting before it."""
    head, parts = head_and_parts(before)
    field, equals, _ = parts[-1].partition("=") if parts else ("", "", "")
    if not equals:
        return False
    if piece[:1].isdigit() or piece[:1] == ".":
        return True
    hint = field_types(kind_of(head)).get(field)
    options = typing.get_args(hint) if hint is not None else ()
    return any(typing.get_origin(one) is tuple for one in (hint, *options))
