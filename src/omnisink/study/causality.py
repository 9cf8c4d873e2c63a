"""Does the sink's value cause the change, or would any push do? Arms that differ in one thing, on the same items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omnisink.methods.ablation import ReplaceSinkValue
from omnisink.methods.controls import OutRoControl
from omnisink.study import words
from omnisink.study.arms import Condition, Record, random_arms, summarise_arms
from omnisink.study.calibration import Calibration
from omnisink.study.plan import Plan
from omnisink.study.survey import ItemMeasurements, plain

#: Before the names of arms that a user added, which may be those of the arms here.
METHOD = "method "


def arms(survey: ItemMeasurements, plan: Plan, calibration: Calibration) -> Iterator[Condition]:
    """Yield the counterfactual arms, which act on the same sinks from the first layer with one; then the methods."""
    start = survey.first_layer()

    def rotate(gamma: float, **how: Any) -> OutRoControl:
        return OutRoControl(gamma=gamma, tau=plan.tau, relax=False, **how)

    for gamma in plan.gammas:
        at = f"gamma {gamma:g}"
        yield Condition(
            f"toward-{gamma:g}", f"toward the sink's value (rotation only), {at}", rotate(gamma), start, {}
        )
        yield Condition(f"away-{gamma:g}", f"away from the sink's value, {at}", rotate(-gamma), start, {})
        for unit, seed in random_arms(f"random-{gamma:g}", plan.seeds, plan.seed):
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
        both = OutRoControl(gamma=gamma, tau=plan.tau)
        yield Condition(f"both-{gamma:g}", f"rotation and relaxation (OutRo), {at}", both, start, {})
    yield Condition("relax", "relaxation only", OutRoControl(rotate=False), start, {})
    yield Condition("zero-value", "sink's value zeroed", ReplaceSinkValue(), start, {})
    mean = ReplaceSinkValue(values=calibration.values)
    yield Condition("mean-value", "sink's value replaced by its mean over the calibration items", mean, start, {})
    for name, method in plan.methods.items():
        # Nothing is known of where such a method begins to act, so no layer is taken from the first run.
        unit = f"{METHOD}{name}"
        yield Condition(unit, f"the method {name}", method, 0, {"arm": unit})


def run(survey: ItemMeasurements, arm: Condition) -> dict[str, Any]:
    """Run one arm and record by how many degrees head outputs were turned, mean over the layers that turn."""
    record, outcome = arm.run(survey.subject)
    angles = {} if outcome.recorded is None else outcome.recorded.measured.get("angle", {})
    turned = [plain(angle[0].cpu().numpy()) for angle in angles.values()]
    return {**record, "turned": sum(turned) / len(turned) if turned else None}


def summarise(records: Sequence[Record], base: Mapping[str, Record], plan: Plan) -> dict[str, Any]:
    """Turn the records of all items into the section of the results: ``arms``."""
    return {"arms": summarise_arms(records, base, seed=plan.seed)}


def read(section: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what the section shows."""
    return [words.arm(row) for row in section["arms"]]
