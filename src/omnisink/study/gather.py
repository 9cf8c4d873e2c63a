"""The results of a study, made of its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnisink.results.schema import STUDY_FORMAT, BaseRecord, StudyRecord
from omnisink.study.calibration import Calibration
from omnisink.study.conditions import summarise_base
from omnisink.study.plan import Plan
from omnisink.study.questions import QUESTIONS
from omnisink.study.records import records_as
from omnisink.study.results import StudyResults

#: Question and unit of the record of the baseline.
BASE = ("base", "base")


def gather(
    records: Sequence[StudyRecord],
    plan: Plan,
    calibration: Calibration,
    example: Mapping[str, Any],
    run: Mapping[str, Any],
) -> StudyResults:
    """Sum up what the records say, question by question.

    Parameters
    ----------
    records : sequence of dict
        All those of the study.
    plan : Plan
        The questions and settings.
    calibration : Calibration
        The sink dimensions found.
    example : mapping
        One item, described token by token.
    run : mapping
        Facts of the run.

    Returns
    -------
    StudyResults
        A dictionary with ``run``, ``baseline``, ``readings``, ``example`` and a section for each question; plain data.
    """
    whose = (r for r in records if (r["question"], r["unit"]) == BASE)
    base = {r["item"]: r for r in records_as(BaseRecord, whose)}
    results = StudyResults(
        {
            "format": STUDY_FORMAT,
            "run": dict(run),
            "baseline": summarise_base(base, plan.seed),
            "readings": {},
            "example": dict(example),
        }
    )
    for name, question in QUESTIONS.items():
        if name in plan.questions:
            own = [r for r in records if r["question"] == name]
            results[name] = question.summarise(own, base, plan, calibration)
            results["readings"][name] = question.interpret(results[name])
    return results
