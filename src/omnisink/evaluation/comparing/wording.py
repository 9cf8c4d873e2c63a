"""A comparison in sentences that claim no more than the data do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnisink.results.wording import LEVEL, counted, is_significant, p_equals, percent, points

#: What a sentence says, and what a table says.
NO_EVIDENCE = "no evidence of a difference"
HIGHER, LOWER = "higher", "lower"
NOTHING = "nothing to compare"


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
    if not is_significant(pair["p_holm"], pair["low"], pair["high"]):
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
    between = f", 95% interval {points(pair['low'])} to {points(pair['high'])}" if pair["low"] is not None else ""
    tested = f"Holm p {p_equals(pair['p_holm'])}"
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
