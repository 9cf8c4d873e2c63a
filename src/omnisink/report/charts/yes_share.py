"""How often every method says yes: a push toward one answer looks like a gain or a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnisink.report.charts.comparison import NAME, methods_of
from omnisink.report.charts.dots import dots, with_lines
from omnisink.report.figure import Column, Figure
from omnisink.report.words import bounded, shown
from omnisink.results.wording import number

_SAID = Column("share", "says yes", ".1%", ("low", "high"))


def yes(results: Mapping[str, Any]) -> list[Figure]:
    """Draw how often every method says yes to questions whose answer is yes or no."""
    rows = [row | row["yes"] for row in methods_of(results) if row.get("yes")]
    if not rows:
        return []
    drawn = [
        {
            "row": i,
            "label": row["label"],
            "value": 100 * row["share"],
            "low": 100 * (row["share"] if row["low"] is None else row["low"]),
            "high": 100 * (row["share"] if row["high"] is None else row["high"]),
            "text": shown(row, _SAID),
        }
        for i, row in enumerate(rows)
    ]
    right = [f"{task['label']}: {number(row['yes']['right'], '.1%')}" for task, row in _first_asked(results)]
    return [
        Figure(
            name="yes",
            title="How often every method says yes",
            caption="The share of yes among the answers to yes/no questions, its line the 95% interval. A method that"
            " pushes toward one answer gains where that answer is the more frequent one. Right answers that are yes: "
            f"{'; '.join(right)}.",
            alternative=" ".join(f"{row['label']}: {shown(row, _SAID)}." for row in rows),
            data={"yes": with_lines(drawn)},
            columns=(
                NAME,
                _SAID,
                Column("right", "right answers that are yes", ".1%"),
                Column("questions", "yes/no questions", "d"),
                Column("accuracy", "accuracy", ".1%"),
            ),
            rows=rows,
            table_open=True,
            **dots("yes", rows, "Answers that are yes (%)", "says yes", lines=bounded(rows)),
        )
    ]


def _first_asked(results: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return each task that has yes/no questions, with a method that answered them."""
    found = ((task, [row for row in task["methods"] if row.get("yes")]) for task in results["tasks"])
    return [(task, rows[0]) for task, rows in found if rows]
