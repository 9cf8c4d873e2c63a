"""Conditions: one change to the model each, run on the same items, and the differences between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from omnisink.methods.base import Method
from omnisink.results.schema import BaseRecord, ConditionFacts, ConditionOutcome, ConditionRecord
from omnisink.results.statistics import SHARE, SHARES_DIFFER, Difference, holm, mean_interval, paired_difference
from omnisink.study.item_runner import ItemRunner, Outcome
from omnisink.study.unit import Unit

#: Separates a condition's name from the number of its draw: ``random-3#0``.
DRAW = "#"

#: What a summary may group by.
Fact = Literal["n", "layer", "keep", "by", "gamma"]


@dataclass(frozen=True)
class Condition:
    """One change.

    Attributes
    ----------
    unit : str
        Short name, with the number of the random draw where the condition is random.
    label : str
        Name for readers.
    method : Method
        The change.
    start : int or None
        First layer at which it can change something; None is nowhere.
    about : ConditionFacts
        Facts for the summary: ``n``, ``layer``, ``keep``, ...; ``arm`` where the condition is not named by `unit`.
    """

    unit: str
    label: str
    method: Method
    start: int | None
    about: ConditionFacts

    def run(self, runner: ItemRunner) -> tuple[ConditionOutcome, Outcome]:
        """Run the condition and return what its record holds, with the outcome."""
        outcome = runner.run(self.method, start=self.start)
        return {**outcome.record(), "label": self.label, **self.about}, outcome


def units_of(conditions: Iterable[Condition], runner: ItemRunner) -> Iterator[Unit]:
    """Yield the units of work that run conditions, and keep nothing but their outcomes."""
    for condition in conditions:
        yield Unit(condition.unit, partial(_record, condition, runner))


def _record(condition: Condition, runner: ItemRunner) -> ConditionOutcome:
    return condition.run(runner)[0]


def random_draws(unit: str, seeds: int, first: int = 0) -> list[tuple[str, int]]:
    """Return the name and the seed of every draw of a random condition."""
    return [(f"{unit}{DRAW}{i}", first + i) for i in range(seeds)]


def summarise_conditions(
    records: Sequence[ConditionRecord], base: Mapping[str, BaseRecord], *, seed: int = 0, about: Sequence[Fact] = ()
) -> list[dict[str, Any]]:
    """Compare every condition with the baseline, item by item.

    Parameters
    ----------
    records : sequence of ConditionRecord
        With what `about` names.
    base : mapping of str to BaseRecord
        By item, the record of the baseline.
    seed : int
        Seed of the bootstrap.
    about : sequence of str
        Facts to carry over, equal for all records of a condition.

    Returns
    -------
    list of dict
        One row for each condition in order of appearance; draws of a random one are averaged within an item.
        ``p`` belongs to the change of the loss, ``p_holm`` is corrected over the rows.
    """
    rows = [_row(name, by_item, base, seed, about) for name, by_item in by_condition(records).items()]
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def by_condition(records: Sequence[ConditionRecord]) -> dict[str, dict[str, list[ConditionRecord]]]:
    """Return the records of every condition by item, in order of appearance; several where it has several draws."""
    grouped: dict[str, dict[str, list[ConditionRecord]]] = {}
    for record in records:
        name = str(record.get("arm") or str(record["unit"]).split(DRAW)[0])
        grouped.setdefault(name, {}).setdefault(record["item"], []).append(record)
    return grouped


def _row(
    name: str,
    by_item: Mapping[str, Sequence[ConditionRecord]],
    base: Mapping[str, BaseRecord],
    seed: int,
    about: Sequence[Fact],
) -> dict[str, Any]:
    items = list(by_item)
    clusters = [base[item]["cluster"] for item in items]
    first = by_item[items[0]][0]

    def mean(item: str, what: Literal["loss", "right"]) -> float:
        return sum(float(cast(float, r[what])) for r in by_item[item]) / len(by_item[item])

    loss = [mean(item, "loss") for item in items]
    gap: Difference = paired_difference(loss, [base[item]["loss"] for item in items], clusters, seed=seed)
    row: dict[str, Any] = {
        "arm": name,
        "label": first["label"],
        "items": len(items),
        "seeds": max(len(draws) for draws in by_item.values()),
        "loss": sum(loss) / len(loss),
        "loss_change": gap.value,
        "loss_low": gap.low,
        "loss_high": gap.high,
        "p": gap.p,
        **dict.fromkeys(("accuracy", "accuracy_change", "accuracy_low", "accuracy_high", "changed")),
        "turned": _mean_of([r.get("turned") for draws in by_item.values() for r in draws]),
        **{fact: first.get(fact) for fact in about},
    }
    asked = [item for item in items if base[item]["right"] is not None]
    if asked:
        right = [mean(item, "right") for item in asked]
        before = [float(cast(bool, base[item]["right"])) for item in asked]
        whose = [base[item]["cluster"] for item in asked]
        score = paired_difference(right, before, whose, bounds=SHARES_DIFFER, seed=seed)
        row |= {
            "accuracy": sum(right) / len(right),
            "accuracy_change": score.value,
            "accuracy_low": score.low,
            "accuracy_high": score.high,
            "changed": sum(
                sum(r["said"] != base[item]["said"] for r in by_item[item]) / len(by_item[item]) for item in asked
            ),
        }
    return row


def summarise_base(base: Mapping[str, BaseRecord], seed: int = 0) -> dict[str, Any]:
    """Sum up the baseline: accuracy and loss with their intervals."""
    clusters = [record["cluster"] for record in base.values()]
    loss = mean_interval([record["loss"] for record in base.values()], clusters, seed=seed)
    out: dict[str, Any] = {
        "items": len(base),
        **dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high")),
        "loss": loss.value,
        "loss_low": loss.low,
        "loss_high": loss.high,
    }
    asked = [record for record in base.values() if record["right"] is not None]
    if asked:
        whose = [r["cluster"] for r in asked]
        right = mean_interval([float(cast(bool, r["right"])) for r in asked], whose, bounds=SHARE, seed=seed)
        out |= {"accuracy": right.value, "accuracy_low": right.low, "accuracy_high": right.high}
    return out


def _mean_of(values: Sequence[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return sum(there) / len(there) if there else None
