"""The direction of the sink's value: the loss over the strength, beside other directions by the same angle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from omnisink.report.charts.intervals import COLUMNS, changes_in_words, given, has_intervals, intervals
from omnisink.report.charts.lines import draw_lines, line_rows
from omnisink.report.figure import Column, Figure, Row
from omnisink.report.words import present
from omnisink.results.wording import CHANGE, SINGLE

#: What the conditions turn toward or away from, in the order of the lines.
SERIES = {"sink": "the sink's value", "random": "a random direction", "opposite": "the opposite direction"}
#: What the sink's direction is compared with.
AGAINST = {
    "random": "against a random direction",
    "opposite": "against the opposite direction",
    "temperature": "against a fitted temperature",
}
#: Below this the axes are near to linear, so that small changes and large ones are seen on one chart.
_NEAR_ZERO, _WEAK = 0.003, 0.1
_GAMMA = Column("gamma", "gamma", "g")


def direction(section: Mapping[str, Any]) -> list[Figure]:
    """Draw the change of the loss over the strength, what is compared at the same angle, and the other conditions.

    Parameters
    ----------
    section : mapping
        The section of the results, with ``directions`` and ``comparisons``.

    Returns
    -------
    list of Figure
        ``direction``, ``direction-compared`` and ``direction-parts``, as far as there is something to draw.
    """
    rows, compared = section.get("directions") or [], section.get("comparisons") or []
    whole = [row for row in rows if row.get("by") in SERIES]
    parts = [row for row in rows if row.get("by") not in SERIES]
    figures = []
    if present(whole, "gamma"):
        title = "The loss over the strength of the rotation"
        caption = (
            "Every point is the change of the loss against the baseline on the same items. The other directions turn"
            " each head output by the angle by which the sink's value turns it at the same gamma."
        )
        figures.append(_curve("direction", title, caption, whole, "by", SERIES))
    if present(compared, "gamma"):
        title = "The sink's direction against others, and against a temperature"
        caption = "Every point compares two conditions on the same items; below zero the sink's direction is better."
        figures.append(_curve("direction-compared", title, caption, compared, "against", AGAINST))
    if parts:
        title = "Where the direction acts"
        caption = "The sink's direction at some layers only, or with some sinks only."
        figures.append(intervals("direction-parts", title, parts, caption=caption, in_order=True))
    return figures


def _curve(name: str, title: str, caption: str, rows: Sequence[Row], field: str, series: Mapping[str, str]) -> Figure:
    """Draw a line for each value of a field over the strength, with bands for intervals."""
    drawn = line_rows(
        (
            {"gamma": row["gamma"], "series": series[row[field]], "value": row["loss_change"]}
            | {"low": row.get("loss_low"), "high": row.get("loss_high")}
            for row in rows
            if row[field] in series
        ),
        CHANGE,
        along="gamma",
    )
    x = alt.X("gamma:Q", scale=alt.Scale(type="symlog", constant=_WEAK, nice=False, padding=10))
    x = x.title("Strength (gamma): away from the direction below zero, toward it above")
    x = x.axis(values=[0, *sorted({row["gamma"] for row in drawn})], format="~g", labelOverlap=True)
    sizes = [10.0**power for power in range(-2, 3)]
    y = alt.Y("value:Q", scale=alt.Scale(type="symlog", constant=_NEAR_ZERO, zero=True)).title("Loss change (nats)")
    y = y.axis(values=[*(-size for size in reversed(sizes)), 0, *sizes], format="+~g")
    order = list(series)
    rows = sorted(
        rows, key=lambda row: (order.index(row[field]) if row[field] in series else len(order), row["gamma"] or 0)
    )
    bands = " Bands are 95% intervals." if has_intervals(rows) else f" {SINGLE}"
    return Figure(
        name=name,
        title=title,
        caption=f"{caption}{bands} Both axes are close to linear near zero and logarithmic beyond.",
        alternative=" ".join(f"{row['label']}: {changes_in_words(row)}." for row in rows),
        chart=draw_lines(name, x, y, list(series.values()), drawn, alt.Tooltip("gamma:Q", title="gamma", format="~g")),
        data={name: drawn},
        columns=given([COLUMNS[0], COLUMNS[1], _GAMMA, *COLUMNS[2:]], rows),
        rows=rows,
    )
