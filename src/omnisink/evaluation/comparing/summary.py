"""A comparison at a glance: does a method help, one row a method, and the groups in which anything changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnisink.evaluation.comparing.wording import HIGHER, LOWER, NO_EVIDENCE, NOTHING
from omnisink.results.wording import MISSING, counted, listed, number, part_of, percent, points, points_interval

#: Heads of the columns of a summary; of the share of yes there is one where questions have that answer.
_YES = "says yes"
HEADS = ("method", "verdict", "change (95% interval)", "missed", "accuracy", _YES, "time")
#: Methods up to which they stand in the order in which they were named; more are sorted by what they change.
FEW = 8
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
        parts.append(f"Worse: {_some(named[LOWER])}.")
    if named[NO_EVIDENCE] and (named[HIGHER] or named[LOWER]):
        parts.append(f"No evidence of a difference: {_some(named[NO_EVIDENCE])}.")
    if named[NOTHING]:
        parts.append(f"Not compared: {_some(named[NOTHING])}.")
    return " ".join(parts)


def _some(names: list[str]) -> str:
    """List some names; of more than a reader takes in, their number, as the rows under the sentence have them."""
    return listed(names) if len(names) <= FEW else f"{len(names)} methods"


def in_reading_order(methods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the methods of a task as they are read: a few as they were named, many by what they change.

    Parameters
    ----------
    methods : sequence of mapping
        The ``methods`` of a task.

    Returns
    -------
    list of mapping
        Of more than `FEW`, the baseline comes first, then the largest gain, and last what was not compared.
    """
    if len(methods) <= FEW:
        return list(methods)

    def place(row: Mapping[str, Any]) -> tuple[bool, float]:
        change = (row["paired"] or {}).get("difference")
        return not row["baseline"], float("inf") if change is None else -change

    return sorted(methods, key=place)


def findings(results: Mapping[str, Any]) -> list[str]:
    """Return what a comparison found, in sentences: the answer for each task, then what differs, then the rest."""
    pairs = [row["paired"] for task in results["tasks"] for row in in_reading_order(task["methods"]) if row["paired"]]
    clear = [pair["sentence"] for pair in pairs if pair["verdict"] in (HIGHER, LOWER)]
    others = [pair["sentence"] for pair in pairs if pair["verdict"] not in (HIGHER, LOWER)]
    return [*(answer(task, results["baseline"]) for task in results["tasks"]), *clear, *others]


def summary_rows(task: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of texts for every method of a task, under those that stand in the first row.

    Changes are in percentage points. The heads are `HEADS`; without a yes/no question, the share of yes is missing.
    """
    rows: list[tuple[str, ...]] = []
    for row in in_reading_order(task["methods"]):
        pair, slower = row["paired"], row["cost"]["slower"]
        said: tuple[str, ...] = (MISSING, MISSING, MISSING)
        if pair is not None and pair["verdict"] == NOTHING:
            said = (_SHORT[NOTHING], MISSING, MISSING)
        elif pair is not None:
            change = points_interval(pair["difference"], pair["low"], pair["high"])
            could = pair["detectable"]["value"]
            said = (_SHORT[pair["verdict"]], change, "any" if could is None else f"< {points(could, sign=False)}")
        time = MISSING if slower is None else f"× {number(slower, ',.2f')}"
        yes = percent((row.get("yes") or {}).get("share"))
        rows.append((row["method"], *said, percent(row["accuracy"]), yes, time))
    asked = any(row.get("yes") for row in task["methods"])
    return [tuple(c for c, head in zip(row, HEADS, strict=True) if asked or head != _YES) for row in (HEADS, *rows)]


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
