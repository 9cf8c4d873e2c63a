"""Rows and columns in words: for tables, and for the text that stands in for a chart."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from omnisink.report.figure import Column, Row
from omnisink.results.wording import interval, number, spaced


def shown(row: Row, column: Column) -> str:
    """Write what a row has in a column, with its interval where the column has one."""
    low, high = (row.get(end) for end in column.ends) if column.ends else (None, None)
    value = row.get(column.name)
    return spaced(value) if column.code and value is not None else interval(value, low, high, column.form)


def head(column: Column, rows: Iterable[Row]) -> str:
    """Write the head of a column, and that there are intervals where there are."""
    if not column.ends or not bounded(rows, *column.ends):
        return column.title
    return f"{column.title[:-1]}, 95% interval)" if column.title.endswith(")") else f"{column.title} (95% interval)"


def bounded(rows: Iterable[Row], low: str = "low", high: str = "high") -> bool:
    """Say whether any row has an interval."""
    return any(isinstance(row.get(low), int | float) and isinstance(row.get(high), int | float) for row in rows)


def present(rows: Iterable[Row], field: str) -> list[Row]:
    """Return the rows that have a number in a field."""
    return [row for row in rows if isinstance(row.get(field), int | float)]


def extremes(rows: Iterable[Row], field: str, form: str, where: Callable[[Row], str], what: str) -> str:
    """Say where a quantity is highest and lowest.

    Parameters
    ----------
    rows : iterable of mappings
        The rows that are drawn.
    field : str
        The quantity.
    form : str
        Its format.
    where : callable
        Names the place of a row, such as "at layer 3".
    what : str
        The quantity in words, to begin the sentence with.

    Returns
    -------
    str
        One sentence.
    """
    known = present(rows, field)
    if not known:
        return f"{what}: no numbers."
    top, bottom = max(known, key=lambda r: r[field]), min(known, key=lambda r: r[field])
    if top[field] == bottom[field]:
        places = where(top) if len(known) == 1 else f"at all {len(known)} places"
        return f"{what}: {number(top[field], form)} {places}."
    return (
        f"{what} is highest {where(top)} ({number(top[field], form)})"
        f" and lowest {where(bottom)} ({number(bottom[field], form)})."
    )


def at_layer(row: Row) -> str:
    """Name the layer of a row."""
    return f"at layer {row.get('layer')}"
