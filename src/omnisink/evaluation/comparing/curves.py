"""What every method scored along a quantity: groups of questions whose names are numbers, as lengths are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from omnisink.evaluation.comparing.outcomes import Floats, TaskTable
from omnisink.results.statistics import SHARE, mean_interval

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
        by growing numbers.
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
                found = mean_interval(
                    part[:, answered].mean(axis=0),
                    [task.clusters[place] for place in inside],
                    bounds=SHARE,
                    seed=seed,
                    resamples=resamples,
                )
                rows.append(
                    {
                        "kind": kind,
                        "group": group,
                        "at": at,
                        "method": method,
                        "questions": len(inside),
                        "accuracy": found.value,
                        "low": found.low,
                        "high": found.high,
                    }
                )
    return rows
