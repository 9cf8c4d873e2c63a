"""Question 5: what does the direction of the sink's value say? Both signs, and other directions at the same angles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from omnisink.maths.layers import is_detection_layer
from omnisink.methods.controls import OutRoControl
from omnisink.methods.criteria import FirstToken, MassiveActivation
from omnisink.results.schema import (
    BaseRecord,
    ConditionFacts,
    ConditionRecord,
    SinkPlaces,
    SinkPlacesRecord,
    StudyRecord,
    Tempered,
    TemperedRecord,
    TurnedTemperedOutcome,
)
from omnisink.results.wording import number
from omnisink.study import direction_comparisons, direction_wording
from omnisink.study.calibration import Calibration
from omnisink.study.causality import degrees_turned
from omnisink.study.conditions import Condition, random_draws, summarise_conditions
from omnisink.study.direction_comparisons import BETAS
from omnisink.study.item_measurements import ItemMeasurements
from omnisink.study.records import records_as
from omnisink.study.settings import Settings
from omnisink.study.unit import Unit

#: Units of the records that are not of a condition.
TEMPERATURE, SINKS = "temperature", "sinks"


def units(measurements: ItemMeasurements, settings: Settings, calibration: Calibration, index: int) -> Iterator[Unit]:
    """Yield where the sinks are, the baseline at other temperatures, and every condition."""
    yield Unit(SINKS, partial(_places, measurements, _acting(measurements, calibration)))
    yield Unit(TEMPERATURE, partial(_temper, measurements))
    for condition in conditions(measurements, settings, calibration, index):
        yield Unit(condition.unit, partial(_run, measurements, condition))


def conditions(
    measurements: ItemMeasurements, settings: Settings, calibration: Calibration, index: int
) -> Iterator[Condition]:
    """Yield the sink's direction and its controls at every strength, then parts of it at the middle strength."""
    acting, strengths = _acting(measurements, calibration), sorted(settings.direction_gammas)
    start, everywhere = first_layer(measurements, acting), {"detect_layers": acting}
    for gamma in [*(-g for g in reversed(strengths)), *strengths]:
        at = f"gamma {number(gamma, 'g')}"
        label = f"{_way(gamma)} the sink's value, {at}"
        yield _turn(f"sink{gamma:+g}", label, settings, start, gamma, "sink", **everywhere)
        # Another direction for every item: what is asked is about random directions, not about one of them.
        draws = random_draws(f"random{gamma:+g}", settings.seeds, settings.seed + index * settings.seeds)
        for unit, seed in draws:
            label = f"toward a random direction by the same angle, {at}"
            yield _turn(unit, label, settings, start, gamma, "random", direction="random", seed=seed, **everywhere)
    for gamma in strengths:
        label = f"away from the sink's value by the angle of gamma {number(gamma, 'g')}"
        yield _turn(
            f"opposite{gamma:+g}", label, settings, start, gamma, "opposite", direction="opposite", **everywhere
        )
    for gamma in middle(settings):
        yield from _parts(measurements, settings, calibration, gamma)
    relaxed = OutRoControl(rotate=False, detect_layers=acting)
    yield Condition("relax", "relaxation only", relaxed, start, {"by": "relaxation"})


def _parts(
    measurements: ItemMeasurements, settings: Settings, calibration: Calibration, gamma: float
) -> Iterator[Condition]:
    """Yield the sink's direction at some layers only, and toward the sink at the first token or the others only."""
    way, at, acting = _way(gamma), f"gamma {number(gamma, 'g')}", _acting(measurements, calibration)
    if acting is not None:
        label = f"{way} the sink's value at every layer, {at}"
        yield _turn(f"every{gamma:+g}", label, settings, first_layer(measurements), gamma, "every layer")
    for layers in layer_parts(calibration, len(measurements.runner.anatomy.layers), settings.layer_parts):
        named = f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
        start = first_layer(measurements, layers)
        label = f"{way} the sink's value at {named} only, {at}"
        unit = f"layers-{layers[0]}{gamma:+g}"
        part = _turn(unit, label, settings, start, gamma, "layers", detect_layers=layers)
        yield Condition(part.unit, part.label, part.method, part.start, {**part.about, "layer": layers[0]})
    positions = _places(measurements, acting)["positions"]
    if not any(positions):
        return
    places = {"others": True, **({"first": False} if 0 in positions else {})}
    for name, others in places.items():
        where = "of sinks after the first token only" if others else "of the sink at the first token only"
        label = f"{way} the value {where}, {at}"
        how: dict[str, Any] = {"criterion": FirstToken(MassiveActivation(), others), "detect_layers": acting}
        start = first_layer(measurements, acting, others=others)
        yield _turn(f"{name}{gamma:+g}", label, settings, start, gamma, f"{name} tokens", **how)


def _turn(
    unit: str, label: str, settings: Settings, start: int | None, gamma: float, by: str, **how: Any
) -> Condition:
    method = OutRoControl(gamma=gamma, tau=settings.tau, relax=False, **how)
    return Condition(unit, label, method, start, {"gamma": gamma, "by": by})


def _way(gamma: float) -> str:
    return "toward" if gamma > 0 else "away from"


def middle(settings: Settings) -> tuple[float, float]:
    """Return the strength in the middle of those that are tried, away and toward."""
    strengths = sorted(settings.direction_gammas)
    gamma = strengths[len(strengths) // 2]
    return -gamma, gamma


def _acting(measurements: ItemMeasurements, calibration: Calibration) -> tuple[int, ...] | None:
    """Return the layers that look for sinks; None, which is as OutRo has it, where no layer is crowded."""
    depth, left_out = len(measurements.runner.anatomy.layers), calibration.crowded
    looking = (layer for layer in range(depth) if is_detection_layer(layer, depth))
    return tuple(layer for layer in looking if layer not in left_out) if left_out else None


def layer_parts(calibration: Calibration, depth: int, count: int) -> list[tuple[int, ...]]:
    """Divide the layers with a sink in some calibration item into parts of nearly one size, in order.

    Of a decoder with `depth` layers, the last two are left out, at which no condition looks for sinks, and those that
    are crowded.
    """
    layers = [layer for layer in sorted(calibration.values) if is_detection_layer(layer, depth)]
    layers = [layer for layer in layers if layer not in calibration.crowded]
    return [tuple(int(i) for i in part) for part in np.array_split(layers, count) if part.size]


def first_layer(
    measurements: ItemMeasurements, layers: Sequence[int] | None = None, *, others: bool | None = None
) -> int | None:
    """Return the first layer with a sink among `layers`; with `others` one that is, or is not, the first token."""
    part = slice(None) if others is None else slice(1, None) if others else slice(1)
    marked = (layer for layer, mask in measurements.massive.items() if bool(mask[0, part].any()))
    return min((layer for layer in marked if layers is None or layer in layers), default=None)


def _places(measurements: ItemMeasurements, acting: Sequence[int] | None) -> SinkPlaces:
    """Return which tokens are a sink at some of the layers, and at which of them."""
    looking = {layer: m[0] for layer, m in measurements.massive.items() if acting is None or layer in acting}
    found = {layer: mask.nonzero().flatten().tolist() for layer, mask in looking.items()}
    return {
        "positions": sorted({position for positions in found.values() for position in positions}),
        "layers": [layer for layer, positions in found.items() if positions],
    }


def _temper(measurements: ItemMeasurements) -> Tempered:
    return {"tempered": measurements.runner.run(start=None, betas=BETAS).tempered}


def _run(measurements: ItemMeasurements, condition: Condition) -> TurnedTemperedOutcome:
    """Run one condition; away from the sink also at other temperatures, because it may only sharpen."""
    away = condition.about.get("by") == "sink" and condition.about["gamma"] < 0
    outcome = measurements.runner.run(condition.method, start=condition.start, betas=BETAS if away else ())
    about: ConditionFacts = condition.about
    return {
        **outcome.record(),
        "label": condition.label,
        **about,
        "turned": degrees_turned(outcome),
        "tempered": outcome.tempered if away else None,
    }


def summarise(
    records: Sequence[StudyRecord], base: Mapping[str, BaseRecord], settings: Settings, calibration: Calibration
) -> dict[str, Any]:
    """Turn the records of all items into the section of the results.

    Parameters
    ----------
    records : sequence of dict
        Those of this question.
    base : mapping
        Records of the baseline by item.
    settings : Settings
        Their seed, and the strengths.
    calibration : Calibration
        It says which layers are crowded.

    Returns
    -------
    dict
        ``directions``: every condition against the baseline. ``comparisons``: the sink's direction against the others
        at the same angle, and what a temperature does. ``p_holm`` is corrected over both together. ``sinks``: how many
        items have a sink at the first token and elsewhere. ``sources``: how many clusters there are. ``middle``: the
        strength at which parts were tried. ``crowded``: layers left out because too many tokens are marked there.
        ``temperatures``: those fitted.
    """
    places = records_as(SinkPlacesRecord, (r for r in records if r["unit"] == SINKS))
    tempered = records_as(TemperedRecord, (r for r in records if r["unit"] == TEMPERATURE))
    whole = records_as(ConditionRecord, (r for r in records if r["unit"] not in (SINKS, TEMPERATURE)))
    rows = summarise_conditions(whole, base, seed=settings.seed, about=("gamma", "by", "layer"))
    found = direction_comparisons.compare(whole, tempered, base, settings.seed)
    direction_comparisons.correct([*rows, *found.rows])
    return {
        "directions": rows,
        "comparisons": found.rows,
        "temperatures": found.temperatures,
        "sinks": {
            "items": len(places),
            "first": sum(0 in place["positions"] for place in places),
            "others": sum(any(position > 0 for position in place["positions"]) for place in places),
        },
        "sources": len({record["cluster"] for record in base.values()}),
        "middle": middle(settings)[1],
        "crowded": list(calibration.crowded),
    }


def interpret(section: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what the section shows."""
    return direction_wording.sentences(section)


def cost(settings: Settings, index: int) -> float:
    """Return roughly how many runs an item takes."""
    return len(settings.direction_gammas) * (3 + 2 * settings.seeds) + 2 * settings.layer_parts + 5
