"""A comparison at a glance: does a method help, one row a method, and the groups in which anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnisink.evaluation.comparing.wording import HIGHER, LOWER, NO_EVIDENCE, NOTHING
from omnisink.results.wording import MISSING, counted, listed, number, part_of, percent, points, points_interval

#: Heads of the columns that `summary_rows` fills.
HEADS = ("method", "verdict", "change (95% interval)", "missed", "accuracy", "time")
#: What a row says of a method; the full sentences are the verdicts of the comparison.
_SHORT = {HIGHER: "better", LOWER: "worse", NO_EVIDENCE: "no evidence", NOTHING: "not compared"}


def answer(task: Mapping[str, Any], baseline: str) -> str:
    """Answer whether a method helps on a task, before any number.

    Parameters
    ----------
    task : mapping
        One of the ``tasks`` of `omnisink.evaluation.comparing.compare.compare`.
    baseline : str
        What the methods are compared with.

    Returns
    -------
    str
        The task, and "yes", "no" or "cannot tell". It is "no" only where every method is worse.
    """
    found = {row["method"]: row["paired"]["verdict"] for row in task["methods"] if row["paired"] is not None}
    if not found:
        return f"{task['label']}: there is one method only, and nothing to compare it with."
    named = {verdict: [method for method, said in found.items() if said == verdict] for verdict in _SHORT}
    several = len(found) > 1
    if len(named[LOWER]) == len(found):
        which = f"all {len(found)} methods are" if several else f"{next(iter(found))} is"
        return f"{task['label']}: no, {which} worse than {baseline}."
    if named[HIGHER]:
        said = f"yes, {listed(named[HIGHER])} {'is' if len(named[HIGHER]) == 1 else 'are'} better than {baseline}."
    else:
        which = f"any of {len(found)} methods" if several else next(iter(found))
        said = f"cannot tell whether {which} is better than {baseline}."
    parts = [f"{task['label']}: {said}"]
    if named[LOWER]:
        parts.append(f"Worse: {listed(named[LOWER])}.")
    if named[NO_EVIDENCE] and (named[HIGHER] or named[LOWER]):
        parts.append(f"No evidence of a difference: {listed(named[NO_EVIDENCE])}.")
    if named[NOTHING]:
        parts.append(f"Not compared: {listed(named[NOTHING])}.")
    return " ".join(parts)


def summary_rows(task: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of texts for every method of a task, under `HEADS`; changes are in percentage points."""
    rows: list[tuple[str, ...]] = []
    for row in task["methods"]:
        pair, slower = row["paired"], row["cost"]["slower"]
        said: tuple[str, ...] = (MISSING, MISSING, MISSING)
        if pair is not None and pair["verdict"] == NOTHING:
            said = (_SHORT[NOTHING], MISSING, MISSING)
        elif pair is not None:
            change = points_interval(pair["difference"], pair["low"], pair["high"])
            could = pair["detectable"]["value"]
            said = (_SHORT[pair["verdict"]], change, "any" if could is None else f"< {points(could, sign=False)}")
        time = MISSING if slower is None else f"× {number(slower, ',.2f')}"
        rows.append((row["method"], *said, percent(row["accuracy"]), time))
    return rows


def sample(task: Mapping[str, Any]) -> str:
    """Say how much was asked: "20 of 150 questions in 12 clusters"."""
    asked = counted(task["questions"], "question")
    if task["reached"] != task["questions"]:
        asked = f"{part_of(task['reached'], task['questions'])} questions"
    return f"{asked} in {counted(task['clusters'], 'cluster')}"


def missed(task: Mapping[str, Any]) -> str:
    """Explain the column of what the sample would have missed, or nothing where no method was compared."""
    could = [row["paired"]["detectable"] for row in task["methods"] if row["paired"] and row["paired"]["detectable"]]
    if not could:
        return ""
    said = "missed: true differences, in points, that so few questions show less often than four times in five"
    floors = any(one["at_least"] for one in could)
    return f"{said}; larger ones may be missed too, as few answers change." if floors else f"{said}."


def changes_anything(row: Mapping[str, Any]) -> bool:
    """Say whether a method changes the score of any question of a group.

    Parameters
    ----------
    row : mapping
        One of a task's ``breakdowns``. Comparisons written before they counted ``changed`` say it by their difference.
    """
    return bool(row.get("changed", row["difference"]))
