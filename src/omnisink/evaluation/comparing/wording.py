"""A comparison in words: numbers as they are read, and sentences that claim no more than the data do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What a sentence says, and what a table says.
NO_EVIDENCE = "no evidence of a difference"
HIGHER, LOWER = "higher", "lower"
NOTHING = "nothing to compare"
#: A p value below this, after Holm's correction, is evidence; the interval must leave zero out too.
LEVEL = 0.05
MISSING = "–"


def percent(value: float | None) -> str:
    """Write a share: ``"61.3 %"``."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def points(value: float | None, sign: bool = True) -> str:
    """Write a difference of shares in percentage points, without the unit: ``"+1.2"``."""
    if value is None:
        return MISSING
    text = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    # A small number that is rounded to zero loses its sign.
    return (text if any(c in "123456789" for c in text) else text.lstrip("+-")).replace("-", "−")


def p_value(value: float | None) -> str:
    """Write a p value: three digits after the point, and never zero."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plain(value: float | None, digits: int = 1) -> str:
    """Write a number with thousands set apart."""
    return MISSING if value is None else f"{value:,.{digits}f}".replace("-", "−")


def bracketed(value: str, low: str, high: str) -> str:
    """Write a number with its interval, or alone where there is none."""
    return value if MISSING in (low, high) else f"{value} ({low} to {high})"


def counted(number: int, one: str, more: str | None = None) -> str:
    """Write a number of things: "1 question", "1,200 questions"."""
    return f"{number:,d} {one if number == 1 else more or one + 's'}"


def verdict(pair: Mapping[str, Any]) -> str:
    """Say what a paired difference shows.

    Parameters
    ----------
    pair : mapping
        With `difference`, `low`, `high` and `p_holm`.

    Returns
    -------
    str
        `HIGHER` or `LOWER` where the corrected p is below `LEVEL` and the interval leaves zero out; else
        `NO_EVIDENCE`, or `NOTHING` where there was no pair.
    """
    if not pair["questions"]:
        return NOTHING
    low, high, p = pair["low"], pair["high"], pair["p_holm"]
    if p is None or p >= LEVEL or low is None or high is None or low <= 0 <= high:
        return NO_EVIDENCE
    return HIGHER if pair["difference"] > 0 else LOWER


def sentence(label: str, method: str, baseline: str, pair: Mapping[str, Any]) -> str:
    """Write what a comparison shows, and what it could have shown.

    Parameters
    ----------
    label, method, baseline : str
        Names.
    pair : mapping
        A paired comparison with its `verdict` and `detectable`.

    Returns
    -------
    str
        One or two sentences. None of them says that two methods are equal.
    """
    found = pair["verdict"]
    if found == NOTHING:
        return f"{label}, {method}: {NOTHING}; no question was answered by both {method} and {baseline}."
    p = p_value(pair["p_holm"])
    between = f", 95 % interval {points(pair['low'])} to {points(pair['high'])}" if pair["low"] is not None else ""
    tested = f"Holm p {p if p.startswith('<') else f'= {p}'}"
    numbers = f"{points(pair['difference'])} points{between}, {tested}"
    if found == NO_EVIDENCE:
        said = f"{label}, {method}: {NO_EVIDENCE} from {baseline} (accuracy {numbers})."
    else:
        said = f"{label}, {method}: accuracy is {found} than with {baseline} ({numbers})."
    left = f" {counted(pair['left_out'], 'question')} left out for want of a score." if pair["left_out"] else ""
    return f"{said} {_could(pair['detectable'], pair['questions'])}{left}"


def detected(detectable: Mapping[str, Any]) -> str:
    """Write the smallest detectable difference in points, for a table."""
    value = points(detectable["value"], sign=False)
    return f"≥ {value}" if detectable["at_least"] and detectable["value"] is not None else value


def _could(detectable: Mapping[str, Any], questions: int) -> str:
    sample = f"With {counted(questions, 'question')} in {counted(detectable['clusters'], 'cluster')}"
    if detectable["value"] is None:
        return f"{sample}, too few for any p below {LEVEL:g}, no difference could have been detected."
    size = f"{points(detectable['value'], sign=False)} points"
    missed = f"a difference of less than {size} is missed more often than one time in five"
    if detectable["differing"] == 0:
        share = percent(detectable["share"])
        return f"{sample}, none better or worse, up to {share} of clusters may still be so, and {missed}."
    if detectable["at_least"]:
        return f"{sample}, so few of them better or worse, {missed}, and a larger one may be."
    return f"{sample}, {missed}."
