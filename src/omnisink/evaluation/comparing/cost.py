"""What a method costs: time, memory and tokens, next to those of the baseline on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from omnisink.evaluation.comparing.outcomes import TaskTable
from omnisink.results.schema import EvaluationRecord

#: Fields of a record that are averaged over questions.
Averaged = Literal["seconds", "prompt_tokens", "new_tokens", "video_tokens", "audio_tokens"]
MEANS: tuple[Averaged, ...] = get_args(Averaged)
#: Percentiles of the ratio of times.
_PERCENTILES = (5, 50, 95)


def cost(task: TaskTable, method: str, baseline: str) -> dict[str, Any]:
    """Return what a method costs a question, on the questions that all methods have reached.

    Parameters
    ----------
    task : TaskTable
        The task.
    method, baseline : str
        Methods of it.

    Returns
    -------
    dict
        Means of `MEANS` (seconds are a question's share of its batch, over the `timed` questions that have any),
        `memory_mb` (the most that was seen), `batch` (sizes of batches), and `slower`: median, 5th and 95th percentile
        of the ratio of the times of each question to those of the baseline. None where nothing was recorded.
    """
    own, base = _answered(task, method), _answered(task, baseline)
    pairs = [(own[key], base[key]) for key in own if key in base]
    times = [(a.get("seconds"), b.get("seconds")) for a, b in pairs]
    ratios = [mine / theirs for mine, theirs in times if mine is not None and theirs]
    low, middle, high = (float(v) for v in np.percentile(ratios, _PERCENTILES)) if ratios else (None, None, None)
    memory = [most for r in own.values() if (most := r.get("memory_mb")) is not None]
    return {
        **{field: _mean(list(own.values()), field) for field in MEANS},
        "timed": sum(record.get("seconds") is not None for record in own.values()),
        "memory_mb": max(memory) if memory else None,
        "batch": sorted({r["batch"] for r in own.values() if r.get("batch") is not None}),
        "slower": None if method == baseline else middle,
        "slower_low": None if method == baseline else low,
        "slower_high": None if method == baseline else high,
    }


def _answered(task: TaskTable, method: str) -> dict[tuple[int, str], EvaluationRecord]:
    """Return the answers by seed and question; an error has no time that would mean anything."""
    return {
        (seed, name): run.last[method][name]
        for seed, run in enumerate(task.runs)
        for name in task.ids
        if run.last[method][name]["error"] is None
    }


def _mean(records: Sequence[EvaluationRecord], field: Averaged) -> float | None:
    values = [value for record in records if (value := record.get(field)) is not None]
    return float(np.mean(values)) if values else None
