"""What every method scored along a quantity: groups of questions whose names are numbers, as lengths are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from omnisink.evaluation.comparing.outcomes import Floats, TaskTable
from omnisink.results.statistics import SHARE, mean_interval

#: The kind of the rows that say how much was left out; it is none of the groups of questions.
SKIP_RATIO = "skip ratio"
#: "1024", "0.25" or "25 %".
_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?%?")


def number_in(group: str) -> float | None:
    """Return the number that the name of a group is; None where it is none."""
    found = _NUMBER.fullmatch(group)
    return float(found[1]) if found else None


def curves(task: TaskTable, scores: Mapping[str, Floats], *, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Return the accuracy of every method in every group of a kind that has two groups or more, all of them numbers.

    Parameters
    ----------
    task : TaskTable
        The task.
    scores : mapping of str to ndarray of float
        For every method (seeds, questions), NaN where there is none.
    seed, resamples : int
        Of the intervals.

    Returns
    -------
    list of dict
        With `kind`, `group`, the number `at`, `method`, `questions`, `accuracy`, `low` and `high`; kind by kind, and
        by growing numbers. Where a method leaves heads out, the last kind is ``"skip ratio"``, in percent; its rows
        have a `series` too, the name of the method without its settings.
    """
    kinds: dict[str, dict[str, list[int]]] = {}
    for (kind, group), places in task.groups().items():
        kinds.setdefault(kind, {})[group] = places
    rows = []
    for kind, groups in kinds.items():
        places_of = {at: group for group in groups if (at := number_in(group)) is not None}
        if len(places_of) < max(2, len(groups)):
            continue
        for at, group in sorted(places_of.items()):
            for method, own in scores.items():
                part = own[:, groups[group]]
                answered = np.asarray(np.isfinite(part).all(axis=0), dtype=np.bool_)
                if not answered.any():
                    continue
                inside = [place for place, kept in zip(groups[group], answered, strict=True) if kept]
                clusters = [task.clusters[place] for place in inside]
                accuracy = _accuracy(part[:, answered], clusters, seed, resamples)
                rows.append({"kind": kind, "group": group, "at": at, "method": method, **accuracy})
    return rows + _by_skip_ratio(task, scores, seed, resamples)


def _by_skip_ratio(task: TaskTable, scores: Mapping[str, Floats], seed: int, resamples: int) -> list[dict[str, Any]]:
    """Return the accuracy of the methods that leave heads out, at the share that they left out, and the others' at 0.

    Methods of one name, which differ in their settings, are one line.
    """
    rows: list[dict[str, Any]] = []
    for method, own in scores.items():
        shares = [share for record in task.records(method) if (share := record.get("skip_ratio")) is not None]
        answered = np.asarray(np.isfinite(own).all(axis=0), dtype=np.bool_)
        if answered.any():
            at = 100 * sum(shares) / len(shares) if shares else 0.0
            clusters = [c for c, kept in zip(task.clusters, answered, strict=True) if kept]
            accuracy = _accuracy(own[:, answered], clusters, seed, resamples)
            named = {"method": method, "series": method.partition(":")[0]}
            rows.append({"kind": SKIP_RATIO, "group": f"{at:.1f} %", "at": at, **named, **accuracy})
    return sorted(rows, key=lambda row: row["at"]) if any(row["at"] > 0 for row in rows) else []


def _accuracy(scores: Floats, clusters: list[str], seed: int, resamples: int) -> dict[str, Any]:
    """Return the accuracy of scores (seeds, questions), with its interval and the number of questions."""
    found = mean_interval(scores.mean(axis=0), clusters, bounds=SHARE, seed=seed, resamples=resamples)
    return {"questions": len(clusters), "accuracy": found.value, "low": found.low, "high": found.high}
