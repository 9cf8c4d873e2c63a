"""Numbers in words, written the same way on pages, in tables, in sentences and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

#: What stands for a number that is not there.
MISSING = "–"
#: Forms beside Python's. A loss and a change of it keep two significant digits however small they are.
NATS, CHANGE = "nats", "+nats"
#: A share as a percentage, a change of a share in percentage points with the unit, and a p value.
PERCENT, POINTS, P_VALUE = ".1%", "points", "p"
#: A p value below this, after Holm's correction, is evidence; the interval must leave zero out too.
LEVEL = 0.05
#: Said of what was measured on a single file: its numbers have no interval, and chance is not told from an effect.
SINGLE = "This is one clip or text: it shows what is measured and which way it went, and no effect."

_UNIT = " points"


def number(value: Any, form: str = "") -> str:
    """Write a value for reading.

    Parameters
    ----------
    value : Any
        A number, string, boolean or None.
    form : str
        Python's format specification, or `NATS`, `CHANGE`, `POINTS` or `P_VALUE`, for numbers.

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
        # A small number that is rounded to zero loses its sign.
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
        return f"{100 * value:+.1f}{_UNIT}"
    if form == P_VALUE:
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return format(value, form or (",d" if isinstance(value, int) else ",.0f" if abs(value) >= 1_000 else ".4g"))


def interval(value: Any, low: Any, high: Any, form: str = "") -> str:
    """Write a number with its interval, or only the number where there is none; a unit is written once."""
    if value is None or low is None or high is None:
        return number(value, form)
    ends = (number(end, form).removesuffix(_UNIT) for end in (low, high))
    return f"{number(value, form)} ({' to '.join(ends)})"


def percent(value: float | None) -> str:
    """Write a share: ``"61.3%"``."""
    return number(value, PERCENT)


def points(value: float | None, sign: bool = True) -> str:
    """Write a difference of shares in percentage points, without the unit: ``"+1.2"``."""
    return number(None if value is None else 100 * value, "+.1f" if sign else ".1f")


def points_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Write a difference of shares with its interval, without the unit, for a column that names it."""
    return interval(value, low, high, POINTS).replace(_UNIT, "")


def p_value(value: float | None) -> str:
    """Write a p value: three digits after the point, and never zero."""
    return number(value, P_VALUE)


def p_equals(value: float | None) -> str:
    """Write a p value as it follows a name in a sentence: ``"= 0.012"`` or ``"< 0.001"``."""
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def counted(count: int, one: str, more: str | None = None) -> str:
    """Write a number of things: "1 question", "1,200 questions"."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def part_of(some: Any, whole: Any) -> str:
    """Write a part of a number of things: "60 of 120", or "120" where it is all of them."""
    return number(some) if whole in (None, some) else f"{number(some)} of {number(whole)}"


def is_significant(p_holm: float | None, low: float | None, high: float | None) -> bool:
    """Say whether a difference is significant: its corrected p is below `LEVEL` and its interval leaves zero out."""
    if p_holm is None or low is None or high is None:
        return False
    return p_holm < LEVEL and not low <= 0 <= high


def true_minus(sentence: str) -> str:
    """Write the minus signs of numbers in a sentence as `number` does; sentences of earlier versions have hyphens."""
    return re.sub(r"(?<![\w.-])-(?=\.?\d)|(?<=\de)-(?=\d)", "−", sentence)


def direction(change: float) -> str:
    """Say which way a number goes, for where its size would be no finding: "rises", "falls" or "stays"."""
    return "rises" if change > 0 else "falls" if change < 0 else "stays"


def listed(items: Sequence[str]) -> str:
    """Join items as in a sentence: "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def spaced(name: Any) -> str:
    """Write a name out of code, such as ``massive_activation``, as words."""
    return str(name).replace("_", " ")
