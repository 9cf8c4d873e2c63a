"""Numbers as words: for tables, and for the text that stands in for a chart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from omnisink.report.figure import Column, Row

MISSING = "–"
#: Forms of our own beside Python's. A loss and a change of it keep two significant digits however small they are.
NATS, CHANGE = "nats", "+nats"
#: A change of a share, in percentage points.
POINTS = "points"


def number(value: Any, form: str = "") -> str:
    """Write a value for reading.

    Parameters
    ----------
    value : Any
        A number, string, boolean or None.
    form : str
        Python's format specification, or `NATS`, `CHANGE` or `POINTS`, for numbers.

    Returns
    -------
    str
        ``"–"`` for None; strings as they are; a minus sign is a real one.
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        text = _written(value, form)
        # Nothing is less than nothing: a small number that is rounded to zero loses its sign.
        return (text if re.search("[1-9]", text) else text.lstrip("+-")).replace("-", "−")
    return str(value)


def _written(value: float, form: str) -> str:
    if form in (NATS, CHANGE):
        sign = "+" if form == CHANGE else ""
        if abs(value) >= 0.01 or not value:
            return format(value, f"{sign}.3f")
        if abs(value) >= 1e-5:
            return format(Decimal(f"{value:.2g}"), f"{sign}f")
        return format(value, f"{sign}.1e").replace("e-0", "e-")
    if form == POINTS:
        return f"{100 * value:+.1f} pts"
    return format(value, form or (",d" if isinstance(value, int) else ",.0f" if abs(value) >= 1_000 else ".4g"))


def interval(value: Any, low: Any, high: Any, form: str = "") -> str:
    """Write a number with its interval if there is one."""
    if low is None or high is None:
        return number(value, form)
    return f"{number(value, form)} ({number(low, form).removesuffix(' pts')} to {number(high, form)})"


def spaced(name: Any) -> str:
    """Write a name out of code, such as ``massive_activation``, as words."""
    return str(name).replace("_", " ")


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


def listed(items: Sequence[str]) -> str:
    """Join items as in a sentence: "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
