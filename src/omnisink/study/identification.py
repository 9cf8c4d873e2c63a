"""Question 1: which criterion finds sinks? Two side by side, and the answers without what each marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np

from omnisink.methods.criteria import RandomTokens
from omnisink.methods.knockout import KnockoutTokens
from omnisink.methods.measure import criterion_name
from omnisink.methods.measurements_views import ON_SINKS
from omnisink.results.schema import BaseRecord, ConditionRecord, Marks, MarksRecord, StudyRecord
from omnisink.results.statistics import mean_interval
from omnisink.results.wording import number
from omnisink.study import wording
from omnisink.study.calibration import Calibration
from omnisink.study.conditions import Condition, random_draws, summarise_conditions, units_of
from omnisink.study.item_measurements import ItemMeasurements, plain
from omnisink.study.records import records_as
from omnisink.study.settings import Settings
from omnisink.study.unit import Unit

#: Unit of the record with an item's marks.
MARKS = "marks"
_READABLE = {"massive_activation": "massive activation", "sink_dimension": "sink dimension"}


def units(measurements: ItemMeasurements, settings: Settings, calibration: Calibration, index: int) -> Iterator[Unit]:
    """Yield what the criteria mark, and the conditions of masking."""
    yield Unit(MARKS, partial(marks, measurements))
    yield from units_of(conditions(measurements, settings), measurements.runner)


def conditions(measurements: ItemMeasurements, settings: Settings) -> Iterator[Condition]:
    """Yield the conditions of masking: what each criterion marks is hidden, and as many random tokens as a control."""
    for index, criterion in enumerate(measurements.criteria):
        name, start = criterion_name(criterion), measurements.first_layer(index)
        label = _READABLE.get(name, name)
        yield Condition(f"hide-{name}", f"hide what {label} marks", KnockoutTokens(criterion), start, {})
        for unit, seed in random_draws(f"hide-random-{name}", settings.seeds, settings.seed):
            like = RandomTokens(criterion, seed)
            yield Condition(unit, f"hide as many random tokens ({label})", KnockoutTokens(like), start, {})


def marks(measurements: ItemMeasurements) -> Marks:
    """Return what the criteria mark in one item, layer by layer, and the attention that every modality gets."""
    sets = {"all": np.ones(measurements.runner.length, dtype=bool)}
    sets |= {name: found[0].numpy() for name, found in measurements.runner.sets().items()}
    found: Marks = {"tokens": {name: int(members.sum()) for name, members in sets.items()}, "criteria": {}}
    for index, criterion in enumerate(measurements.criteria):
        name = criterion_name(criterion)
        mass = measurements.recording.mass_on(name)[0].mean(axis=-1)
        layers = {}
        for layer, mask in measurements.sinks(index).masks.items():
            here = mask[0].numpy()
            row = list(measurements.recording.layers).index(layer)
            layers[str(layer)] = {
                "marked": {kind: int((here & members).sum()) for kind, members in sets.items()},
                "positions": np.flatnonzero(here)[:64].tolist(),
                "mass": plain(mass[row]) if here.any() else None,
            }
        found["criteria"][name] = layers
    kinds = [name for kind in measurements.runner.sets() for name in (kind, f"{kind}{ON_SINKS}")]
    mass_on = {name: measurements.recording.mass_on(name)[0].mean(axis=-1) for name in kinds}
    found["attention"] = {
        str(layer): {name: plain(mass[row]) for name, mass in mass_on.items()}
        for row, layer in enumerate(measurements.recording.layers)
    }
    return found


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
        Their seed is used.
    calibration : Calibration
        The sink dimensions found.

    Returns
    -------
    dict
        ``by_layer``, ``overlap``, ``stability``, ``attention``, ``channels``, ``masking``.
    """
    marked = records_as(MarksRecord, (r for r in records if r["unit"] == MARKS))
    masked = records_as(ConditionRecord, (r for r in records if r["unit"] != MARKS))
    clusters = [base[r["item"]]["cluster"] for r in marked]
    names = list(dict.fromkeys(name for r in marked for name in r["criteria"]))
    by_layer, stability = [], []
    for name in names:
        for layer in sorted(int(k) for k in marked[0]["criteria"][name]):
            here = [r["criteria"][name][str(layer)] for r in marked]
            by_layer += list(_shares(name, layer, marked, here, clusters, settings.seed))
            sets = [set(h["positions"]) for h in here]
            stability.append(
                {
                    "criterion": name,
                    "layer": layer,
                    "prompts": _mean([bool(s) for s in sets]),
                    "first": _mean([0 in s for s in sets]),
                    "jaccard": _mean([_jaccard(a, b) for a, b in combinations(sets[:50], 2)]),
                }
            )
    return {
        "by_layer": by_layer,
        "overlap": _overlap(marked, names),
        "stability": stability,
        "attention": list(_attention(marked, clusters, settings.seed)),
        "channels": list(calibration.channels),
        "masking": summarise_conditions(masked, base, seed=settings.seed),
    }


def _shares(
    name: str, layer: int, marked: Sequence[MarksRecord], here: Sequence[Any], clusters: Sequence[str], seed: int
) -> Iterator[dict[str, Any]]:
    for kind in dict.fromkeys(kind for r in marked for kind in r["tokens"]):
        shares, whose = [], []
        for r, h, cluster in zip(marked, here, clusters, strict=True):
            if r["tokens"].get(kind):
                shares.append(h["marked"][kind] / r["tokens"][kind])
                whose.append(cluster)
        # No bounds: where no prompt has a sink, one that was missed has a few and is not marked as a whole.
        share = mean_interval(shares, whose, seed=seed, resamples=1999)
        masses = [h["mass"] for h in here if h["mass"] is not None]
        yield {
            "criterion": name,
            "layer": layer,
            "modality": kind,
            "tokens": _mean([r["tokens"].get(kind, 0) for r in marked]),
            "marked": _mean([h["marked"].get(kind, 0) for h in here]),
            "share": share.value,
            "low": share.low,
            "high": share.high,
            "mass": _mean(masses) if masses and kind == "all" else None,
        }


def _attention(marked: Sequence[MarksRecord], clusters: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """Yield the attention to every modality by layer, its sinks apart from its other tokens; together they are all.

    An item without a modality gives it no attention. Records of earlier versions have none of this.
    """
    kinds = dict.fromkeys(kind for r in marked for kind in r["tokens"] if kind != "all")
    for layer in sorted({int(layer) for r in marked for layer in r.get("attention", {})}):
        here = [(r["attention"][str(layer)], c) for r, c in zip(marked, clusters, strict=True) if "attention" in r]
        for kind, sink in product(kinds, (True, False)):
            masses, whose = [], []
            for mass, cluster in here:
                whole, part = (mass.get(name, 0.0) for name in (kind, f"{kind}{ON_SINKS}"))
                if whole is not None and part is not None:
                    masses.append(part if sink else max(0.0, whole - part))
                    whose.append(cluster)
            if not masses or (sink and not any(masses)):
                continue
            mean = mean_interval(masses, whose, seed=seed, resamples=1999)
            yield {
                "layer": layer,
                "modality": kind,
                "sink": sink,
                "items": len(masses),
                "mass": mean.value,
                "low": mean.low,
                "high": mean.high,
            }


def _overlap(marked: Sequence[MarksRecord], names: Sequence[str]) -> list[dict[str, Any]]:
    if len(names) < 2:
        return []
    rows = []
    for layer in sorted(int(k) for k in marked[0]["criteria"][names[0]]):
        pairs = [tuple(set(r["criteria"][n][str(layer)]["positions"]) for n in names[:2]) for r in marked]
        rows.append(
            {
                "layer": layer,
                "both": _mean([len(a & b) for a, b in pairs]),
                "only_massive": _mean([len(a - b) for a, b in pairs]),
                "only_dimension": _mean([len(b - a) for a, b in pairs]),
                "jaccard": _mean([_jaccard(a, b) for a, b in pairs]),
            }
        )
    return rows


def interpret(section: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what the section shows."""
    said = []
    for name in dict.fromkeys(row["criterion"] for row in section["by_layer"]):
        rows = [r for r in section["by_layer"] if r["criterion"] == name and r["modality"] == "all" and r["marked"]]
        label = _READABLE.get(name, name)
        if not rows:
            said.append(f"By {label}, no token is a sink at any layer.")
            continue
        most = max(rows, key=lambda r: r["marked"])
        masses = [r["mass"] for r in rows if r["mass"] is not None]
        least, largest = (number(end(masses), ".0%") for end in (min, max))
        said.append(
            f"By {label}, tokens are marked at layers {rows[0]['layer']} to {rows[-1]['layer']}, "
            f"{number(most['marked'], '.1f')} a prompt at most (layer {most['layer']}); other tokens place {least} to "
            f"{largest} of their attention on them, layer by layer."
        )
    chosen = [str(c["channel"]) for c in section["channels"] if c["chosen"]]
    said.append(
        f"Sink dimensions found from the data: {', '.join(chosen)}."
        if chosen
        else "No channel exceeds 20 times a token's root mean square in half of the prompts: there are no sink "
        "dimensions by that definition, and the second criterion could not be applied."
    )
    return said + wording.conditions(section["masking"])


def cost(settings: Settings, index: int) -> float:
    """Return roughly how many runs an item takes."""
    return 2.0 + 2 * settings.seeds


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0
