"""How often a method says yes to questions whose answer is yes or no: a push toward one answer looks like a gain."""

from __future__ import annotations

from typing import Any

import numpy as np

from omnisink.evaluation.comparing.outcomes import TaskTable
from omnisink.results.schema import EvaluationRecord
from omnisink.results.statistics import SHARE, mean_interval

YES, NO = "yes", "no"


def yes_share(task: TaskTable, method: str, *, seed: int, resamples: int) -> dict[str, Any] | None:
    """Return the share of "yes" among a method's answers to yes/no questions.

    Parameters
    ----------
    task : TaskTable
        The task.
    method : str
        A method of it.
    seed, resamples : int
        Of the interval, which draws clusters.

    Returns
    -------
    dict or None
        ``questions`` that were answered in every seed; the ``share`` of them to which the answer was yes, averaged
        over seeds, with its interval (``low``, ``high``); and ``right``, the share whose right answer is yes. An
        answer that could not be parsed is not yes, and an error is no answer. None where no question is of this kind.
    """
    said: list[float] = []
    right: list[bool] = []
    clusters: list[str] = []
    for place, name in enumerate(task.ids):
        records = [run.last[method][name] for run in task.runs]
        if not all(_is_yes_no(record) for record in records):
            continue
        said.append(float(np.mean([_word(record.get("parsed")) == YES for record in records])))
        right.append(_word(records[0].get("gold")) == YES)
        clusters.append(task.clusters[place])
    if not said:
        return None
    found = mean_interval(np.array(said), clusters, bounds=SHARE, seed=seed, resamples=resamples)
    return {
        "questions": len(said),
        "share": found.value,
        "low": found.low,
        "high": found.high,
        "right": float(np.mean(right)),
    }


def _is_yes_no(record: EvaluationRecord) -> bool:
    return record["error"] is None and _word(record.get("gold")) in (YES, NO)


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""
