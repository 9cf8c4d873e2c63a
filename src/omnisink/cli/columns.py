"""Tables of one line a row: with little room columns are left out, and a long cell is cut, but no line is broken."""

from __future__ import annotations

from collections.abc import Sequence

from omnisink.cli.output import stdout, text

#: What stands between columns.
GAP = "  "
#: Characters that a column keeps before others are left out.
_LEAST = 12


def print_columns(rows: Sequence[tuple[str, ...]], least: int, shrinking: int = 0) -> None:
    """Print a table that fits the terminal, whose first row holds the heads; in a pipe nothing is left out."""
    head, *others = columns_within(rows, stdout().width, least, shrinking) if stdout().is_terminal else whole(rows)
    stdout().print(text(head), style="bold", soft_wrap=True)
    for line in others:
        stdout().print(text(line), soft_wrap=True)


def whole(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out the rows of a table with all they hold, a line each."""
    return _lines(rows, _sizes(rows))


def columns_within(rows: Sequence[tuple[str, ...]], width: int, least: int, shrinking: int = 0) -> list[str]:
    """Lay out the rows of a table, a line each.

    Parameters
    ----------
    rows : sequence of tuple of str
        The heads, and the rows under them.
    width : int
        Characters of a line.
    least : int
        Columns that are always there; with little room, those after them are left out from the end.
    shrinking : int
        The column whose cells are cut where that is not enough.

    Returns
    -------
    list of str
        No longer than `width`, as long as that holds the first columns with twelve characters of the one that shrinks.
    """
    sizes = _sizes(rows)

    def rest(kept: int) -> int:
        return sum(size for i, size in enumerate(sizes[:kept]) if i != shrinking) + len(GAP) * (kept - 1)

    kept, smallest = len(sizes), min(sizes[shrinking], _LEAST)
    while kept > least and rest(kept) + smallest > width:
        kept -= 1
    sizes[shrinking] = max(min(sizes[shrinking], width - rest(kept)), smallest)
    return _lines(rows, sizes[:kept])


def cut(cell: str, size: int, *, middle: bool = True) -> str:
    """Shorten a text to a number of characters: a name in its middle, as its end tells settings apart."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(cell) <= size:
        return cell
    end = ""
    for character in reversed(cell if middle else ""):
        if cell_len(character + end) > (size - 1) // 2:
            break
        end = character + end
    return f"{set_cell_size(cell, size - 1 - cell_len(end)).rstrip()}…{end}"


def _sizes(rows: Sequence[tuple[str, ...]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _lines(rows: Sequence[tuple[str, ...]], sizes: Sequence[int]) -> list[str]:
    from rich.cells import set_cell_size

    return [
        GAP.join(
            set_cell_size(cut(cell, size, middle=i == 0), size)
            for i, (cell, size) in enumerate(zip(row, sizes, strict=False))
        ).rstrip()
        for row in rows
    ]
