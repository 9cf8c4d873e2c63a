"""Question 4: does the sink's value cause the change, or would any push do? Conditions that differ in one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from omnisink.methods.ablation import ReplaceSinkValue
from omnisink.methods.controls import OutRoControl
from omnisink.results.schema import BaseRecord, ConditionRecord, StudyRecord, TurnedOutcome
from omnisink.study import wording
from omnisink.study.calibration import Calibration
from omnisink.study.conditions import Condition, random_draws, summarise_conditions
from omnisink.study.item_measurements import ItemMeasurements, plain
from omnisink.study.item_runner import Outcome
from omnisink.study.records import records_as
from omnisink.study.settings import Settings
from omnisink.study.unit import Unit

#: Before the names of conditions that a user added, which may be those of the conditions here.
METHOD = "method "


def units(measurements: ItemMeasurements, settings: Settings, calibration: Calibration, index: int) -> Iterator[Unit]:
    """Yield every condition."""
    for condition in conditions(measurements, settings, calibration):
        yield Unit(condition.unit, partial(_run, measurements, condition))


def conditions(measurements: ItemMeasurements, settings: Settings, calibration: Calibration) -> Iterator[Condition]:
    """Yield the counterfactuals, which act on the same sinks from the first layer with one; then the methods."""
    start = measurements.first_layer()

    def rotate(gamma: float, **how: Any) -> OutRoControl:
        return OutRoControl(gamma=gamma, tau=settings.tau, relax=False, **how)

    for gamma in settings.gammas:
        at = f"gamma {gamma:g}"
        yield Condition(
            f"toward-{gamma:g}", f"toward the sink's value (rotation only), {at}", rotate(gamma), start, {}
        )
        yield Condition(f"away-{gamma:g}", f"away from the sink's value, {at}", rotate(-gamma), start, {})
        for unit, seed in random_draws(f"random-{gamma:g}", settings.seeds, settings.seed):
            yield Condition(
                unit,
                f"toward a random direction by the same angle, {at}",
                rotate(gamma, direction="random", seed=seed),
                start,
                {},
            )
        yield Condition(
            f"layer-{gamma:g}",
            f"toward the previous layer's value by the same angle, {at}",
            rotate(gamma, direction="layer"),
            start,
            {},
        )
        both = OutRoControl(gamma=gamma, tau=settings.tau)
        yield Condition(f"both-{gamma:g}", f"rotation and relaxation (OutRo), {at}", both, start, {})
    yield Condition("relax", "relaxation only", OutRoControl(rotate=False), start, {})
    yield Condition("zero-value", "sink's value zeroed", ReplaceSinkValue(), start, {})
    mean = ReplaceSinkValue(values=calibration.values)
    yield Condition("mean-value", "sink's value replaced by its mean over the calibration items", mean, start, {})
    for name, method in settings.methods.items():
        # Nothing is known of where such a method begins to act, so no layer is taken from the first run.
        unit = f"{METHOD}{name}"
        yield Condition(unit, f"the method {name}", method, 0, {"arm": unit})


def _run(measurements: ItemMeasurements, condition: Condition) -> TurnedOutcome:
    """Run one condition and record by how many degrees it turned head outputs."""
    record, outcome = condition.run(measurements.runner)
    return {**record, "turned": degrees_turned(outcome)}


def degrees_turned(outcome: Outcome) -> float | None:
    """Return by how many degrees a condition turned head outputs, mean over the layers that turn; None for none."""
    angles = {} if outcome.recorded is None else outcome.recorded.measured.get("angle", {})
    turned = [plain(angle[0].cpu().numpy()) for angle in angles.values()]
    return sum(turned) / len(turned) if turned else None


def summarise(
    records: Sequence[StudyRecord], base: Mapping[str, BaseRecord], settings: Settings, calibration: Calibration
) -> dict[str, Any]:
    """Turn the records of all items into the section of the results: ``arms``."""
    return {"arms": summarise_conditions(records_as(ConditionRecord, records), base, seed=settings.seed)}


def interpret(section: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what the section shows."""
    return wording.conditions(section["arms"])


def cost(settings: Settings, index: int) -> float:
    """Return roughly how many runs an item takes."""
    return len(settings.gammas) * (4 + settings.seeds) + 3 + len(settings.methods)
