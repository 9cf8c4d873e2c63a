"""From the records of a study to its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnisink.study import causality, heads, identification, values
from omnisink.study.arms import summarise_base
from omnisink.study.calibration import Calibration
from omnisink.study.plan import Plan
from omnisink.study.work import BASE

FORMAT = "omnisink.study.v1"


def gather(
    records: Sequence[Mapping[str, Any]],
    plan: Plan,
    calibration: Calibration,
    example: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Sum up what the records say, question by question.

    Parameters
    ----------
    records : sequence of dict
        All of the study.
    plan : Plan
        What was asked.
    calibration : Calibration
        The sink dimensions found.
    example : mapping
        One item looked at closely.
    run : mapping
        What was run.

    Returns
    -------
    dict
        ``run``, ``baseline``, ``readings``, ``example`` and a section for each question; plain data.
    """
    base = {r["item"]: r for r in records if (r["question"], r["unit"]) == BASE}

    def of(question: str) -> list[Mapping[str, Any]]:
        return [r for r in records if r["question"] == question]

    results: dict[str, Any] = {
        "format": FORMAT,
        "run": dict(run),
        "baseline": summarise_base(base, plan.seed),
        "readings": {},
        "example": dict(example),
    }
    if plan.asks("identification"):
        section = identification.summarise(of("identification"), base, calibration.channels, plan)
        results["identification"], results["readings"]["identification"] = section, identification.read(section)
    if plan.asks("heads"):
        section = heads.summarise(of("heads"), base, plan)
        results["heads"], results["readings"]["heads"] = section, heads.read(section)
    if plan.asks("values"):
        section = values.summarise(of("values"), base, plan)
        results["values"], results["readings"]["values"] = section, values.read(section)
    if plan.asks("causality"):
        section = causality.summarise(of("causality"), base, plan)
        results["causality"], results["readings"]["causality"] = section, causality.read(section)
    return results
