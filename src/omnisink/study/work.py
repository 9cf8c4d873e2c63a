"""What there is to do for one item, in units small enough that a kill costs seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from omnisink.study import causality, heads, identification, values
from omnisink.study.arms import Condition
from omnisink.study.calibration import Calibration
from omnisink.study.plan import Plan
from omnisink.study.subject import ItemRunner
from omnisink.study.survey import ItemMeasurements

#: Question and unit of the untouched model's record.
BASE = ("base", "base")


@dataclass(frozen=True)
class Unit:
    """One piece of work, whose result is one record.

    Attributes
    ----------
    question, name : str
        Which.
    run : callable
        Does it and returns what the record holds.
    """

    question: str
    name: str
    run: Callable[[], dict[str, Any]]


def units(survey: ItemMeasurements, plan: Plan, calibration: Calibration, index: int) -> Iterator[Unit]:
    """Yield every unit of one item.

    Parameters
    ----------
    survey : Survey
        The item.
    plan : Plan
        What is asked.
    calibration : Calibration
        Sink dimensions and mean values.
    index : int
        Number of the item; the costly questions are asked of the first ones only.

    Yields
    ------
    Unit
        In the order in which they are best done.
    """
    subject = survey.subject
    yield Unit(*BASE, partial(_base, subject))
    if plan.asks("identification"):
        yield Unit("identification", identification.MARKS, partial(identification.marks, survey))
        yield from _of_arms("identification", identification.arms(survey, plan), subject)
    if plan.asks("values"):
        yield Unit("values", values.GEOMETRY, partial(values.geometry, survey))
        yield Unit("values", values.DISTANCE, partial(values.distance, survey))
        for arm in values.zero_k_arms(survey):
            yield Unit("values", arm.unit, partial(values.run_zero_k, survey, arm))
        if index < plan.pruning_items:
            yield from _of_arms("values", values.pruning_arms(survey, plan), subject)
    if plan.asks("causality"):
        for arm in causality.arms(survey, plan, calibration):
            yield Unit("causality", arm.unit, partial(causality.run, survey, arm))
    if plan.asks("heads"):
        yield Unit("heads", heads.ATTENTION, partial(heads.attention, survey))
        if index < plan.heads_items:
            for layer in heads.layers_of(plan, subject):
                yield Unit("heads", f"layer-{layer}", partial(heads.zero_layer, subject, layer))


def _base(subject: ItemRunner) -> dict[str, Any]:
    return {**subject.base.record(), "cluster": subject.item.cluster, "tokens": subject.length}


def _of_arms(question: str, arms: Iterable[Condition], subject: ItemRunner) -> Iterator[Unit]:
    for arm in arms:
        yield Unit(question, arm.unit, partial(_run_arm, arm, subject))


def _run_arm(arm: Condition, subject: ItemRunner) -> dict[str, Any]:
    return arm.run(subject)[0]
