"""Pairs of conditions on the same items: the sink's direction against others, and against a temperature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.results.schema import BaseRecord, ConditionRecord, TemperedRecord
from omnisink.results.statistics import holm, paired_difference
from omnisink.results.wording import number
from omnisink.study.conditions import by_condition

#: Inverse temperatures at which losses are measured; at 1 the loss is that of the model.
BETAS = (0.65, 0.8, 0.9, 1.1, 1.2, 1.45)
#: Where a temperature is looked for between them.
_GRID = np.linspace(BETAS[0], BETAS[-1], 801)
#: Conditions that are compared with the sink's direction, with their names for readers.
_OTHERS = {"random": "a random direction", "opposite": "the opposite direction"}

Floats = NDArray[np.float64]


@dataclass
class Comparisons:
    """What `compare` found.

    Attributes
    ----------
    rows : list of dict
        As those of `omnisink.study.conditions.summarise_conditions`, with ``gamma`` and ``against``.
    temperatures : list of float
        Those fitted on either half of the sources for the baseline; empty where there are too few sources.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)


def compare(
    records: Sequence[ConditionRecord], tempered: Sequence[TemperedRecord], base: Mapping[str, BaseRecord], seed: int
) -> Comparisons:
    """Compare the sink's direction with others at the same angle, and with a temperature fitted on other sources.

    Parameters
    ----------
    records : sequence of ConditionRecord
        Those of the conditions, with ``gamma`` and ``by``.
    tempered : sequence of TemperedRecord
        The baseline's losses at other temperatures.
    base : mapping
        Records of the baseline by item.
    seed : int
        Seed of the intervals.

    Returns
    -------
    Comparisons
        Not yet corrected for their number.
    """
    made = Comparisons()
    arms = by_condition(records)
    losses = {name: _losses(by_item) for name, by_item in arms.items()}
    for name, by_item in arms.items():
        facts = next(iter(by_item.values()))[0]
        if facts.get("by") != "sink":
            continue
        gamma = facts["gamma"]
        for other, words in _OTHERS.items():
            if (control := f"{other}{gamma:+g}") in losses:
                label = f"{facts['label'].split(',')[0]} against {words}, gamma {number(gamma, 'g')}"
                pair = _Pair(f"{name} against {other}", label, losses[name], losses[control])
                made.rows.append(pair.row(base, seed, gamma, other))
    plain = {r["item"]: r["tempered"] for r in tempered if r["tempered"] is not None}
    curves = {item: _curve(base[item]["loss"], losses) for item, losses in plain.items()}
    halves = _halves([base[item]["cluster"] for item in curves])
    if halves:
        made.rows += _against_temperature(made, arms, curves, halves, base, seed)
    return made


def _against_temperature(
    made: Comparisons,
    arms: Mapping[str, Mapping[str, Sequence[ConditionRecord]]],
    curves: Mapping[str, Floats],
    halves: Sequence[set[str]],
    base: Mapping[str, BaseRecord],
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Yield the baseline at a fitted temperature, and each condition away at its own against that."""
    fitted, betas = _cross_fitted(curves, halves, base)
    made.temperatures = [1 / beta for beta in betas]
    label = "the baseline with a temperature fitted on other sources"
    plain = {item: base[item]["loss"] for item in fitted}
    yield _Pair("temperature", label, fitted, plain).row(base, seed, None, "baseline")
    for name, by_item in arms.items():
        own = {
            item: _curve(draws[0]["loss"], losses)
            for item, draws in by_item.items()
            if (losses := draws[0].get("tempered")) is not None and item in fitted
        }
        if own and _halves([base[item]["cluster"] for item in own]) == halves:
            first = next(iter(by_item.values()))[0]
            label = f"{first['label']}, with a temperature fitted likewise, against the baseline with one"
            both = _cross_fitted(own, halves, base)[0]
            pair = _Pair(f"{name} at a temperature", label, both, fitted)
            yield pair.row(base, seed, first["gamma"], "temperature")


@dataclass(frozen=True)
class _Pair:
    """Losses of two conditions by item; what is compared are the items of the first."""

    name: str
    label: str
    changed: Mapping[str, float]
    other: Mapping[str, float]

    def row(self, base: Mapping[str, BaseRecord], seed: int, gamma: float | None, against: str) -> dict[str, Any]:
        items = [item for item in self.changed if item in self.other]
        pairs = [(self.changed[item], self.other[item]) for item in items]
        changed, other = ([pair[i] for pair in pairs] for i in (0, 1))
        gap = paired_difference(changed, other, [base[item]["cluster"] for item in items], seed=seed)
        return {
            "arm": self.name,
            "label": self.label,
            "gamma": gamma,
            "against": against,
            "items": len(items),
            "loss_change": gap.value,
            "loss_low": gap.low,
            "loss_high": gap.high,
            "p": gap.p,
            **dict.fromkeys(("accuracy", "accuracy_change", "accuracy_low", "accuracy_high", "changed")),
        }


def correct(rows: Sequence[MutableMapping[str, Any]]) -> None:
    """Give rows the p values that are corrected, after Holm, over all of them."""
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected


def _losses(by_item: Mapping[str, Sequence[ConditionRecord]]) -> dict[str, float]:
    return {item: sum(draw["loss"] for draw in draws) / len(draws) for item, draws in by_item.items()}


def _curve(loss: float, tempered: Sequence[float]) -> Floats:
    """Return the loss over `_GRID`: the polynomial through what was measured, which is smooth in the temperature."""
    betas, losses = np.array([1.0, *BETAS]), np.array([loss, *tempered])
    # About the middle, where powers stay small.
    through = np.polyfit(betas - 1, losses, len(betas) - 1)
    return np.asarray(np.polyval(through, _GRID - 1), dtype=np.float64)


def _halves(clusters: Sequence[str]) -> list[set[str]]:
    """Divide sources into two halves, by turns in the order of their names; nothing where there are too few."""
    names = sorted(set(clusters))
    return [set(names[::2]), set(names[1::2])] if len(names) > 1 else []


def _cross_fitted(
    curves: Mapping[str, Floats], halves: Sequence[set[str]], base: Mapping[str, BaseRecord]
) -> tuple[dict[str, float], list[float]]:
    """Return every item's loss at the temperature that is best for the other half, and the inverse temperatures."""
    best = []
    for half in halves:
        own = [curve for item, curve in curves.items() if base[item]["cluster"] in half]
        best.append(int(np.mean(own, axis=0).argmin()))
    losses = {
        item: float(curve[best[1 if base[item]["cluster"] in halves[0] else 0]]) for item, curve in curves.items()
    }
    return losses, [float(_GRID[i]) for i in best]
