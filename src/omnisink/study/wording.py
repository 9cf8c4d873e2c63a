"""What the conditions of a study changed, in sentences: effects with intervals, of a single file only directions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omnisink.results.wording import (
    CHANGE,
    POINTS,
    SINGLE,
    counted,
    direction,
    interval,
    is_significant,
    listed,
    number,
)


def nats(value: float, low: float | None = None, high: float | None = None) -> str:
    """Write a change of the loss in nats, with its interval where there is one."""
    bounds = "" if low is None or high is None else f" ({number(low, CHANGE)} to {number(high, CHANGE)})"
    return f"{number(value, CHANGE)} nats{bounds}"


def verdict(row: Mapping[str, Any]) -> str:
    """Say whether a condition changes the loss: only where the change is significant is it said to."""
    low, high = row["loss_low"], row["loss_high"]
    if not is_significant(row["p_holm"], low, high):
        return "no difference that holds after correction"
    return "lowers the loss" if row["loss_change"] < 0 else "raises the loss"


def changes(row: Mapping[str, Any]) -> str:
    """Say what a condition changes: the loss, and for questions the accuracy, each with its interval."""
    said = f"{verdict(row)}, {nats(row['loss_change'], row['loss_low'], row['loss_high'])}"
    if row["accuracy_change"] is None:
        return said
    return f"{said}; accuracy {interval(row['accuracy_change'], row['accuracy_low'], row['accuracy_high'], POINTS)}"


def conditions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what conditions change: a sentence for each with an interval, and which way all others go."""
    bounded = [condition(row) for row in rows if row["loss_low"] is not None]
    return bounded + directions([row for row in rows if row["loss_low"] is None])


def directions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in a sentence which way the loss goes under conditions without an interval, and that this is no effect.

    Without an interval is what was measured on a single file, and what changes nothing anywhere.
    """
    if not rows:
        return []
    if not any(row["loss_change"] for row in rows):
        return [f"The loss stays under {counted(len(rows), 'condition')}: nothing changes on these items."]
    ways = Counter(direction(row["loss_change"]) for row in rows)
    parts = [f"{way} under {number(ways[way])}" for way in ("rises", "falls", "stays") if ways[way]]
    asked = [row["changed"] for row in rows if row["changed"] is not None]
    answers = sum(map(bool, asked))
    said = f"; the answer changes under {number(answers) if answers else 'none'}" if asked else ""
    return [f"Of {counted(len(rows), 'condition')}, the loss {listed(parts)}{said}. {SINGLE}"]


def condition(row: Mapping[str, Any]) -> str:
    """Say what a condition changes, in a sentence that begins with its label."""
    label = row["label"]
    return f"{label[0].upper()}{label[1:]}: {changes(row)}."
