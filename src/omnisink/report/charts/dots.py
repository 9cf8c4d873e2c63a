"""A point for every method, with its interval: what each scores, costs, or says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from omnisink.report.charts.rows import Rows, fitted, folded
from omnisink.report.figure import Row, named


def dots(data: str, rows: Sequence[Row], title: str, what: str, *, lines: bool, zero: bool = False) -> dict[str, Any]:
    """Draw a point for every row, with its interval where there are any; return the chart as `fitted` does.

    Parameters
    ----------
    data : str
        Name of the data: ``row``, ``label``, ``value``, ``text``, and ``low`` and ``high`` where there are lines.
    rows : sequence of mapping
        What is drawn, with its ``label``.
    title, what : str
        Title of the axis, and of the number in the tooltip.
    lines : bool
        Draw intervals.
    zero : bool
        Let the axis begin at zero.

    Returns
    -------
    dict
        ``chart``, ``narrow`` and ``narrowest`` of a `Figure`.
    """
    x = alt.X("value:Q").title(title).scale(zero=zero, padding=12).axis(grid=True, tickCount=6)
    tooltip = [alt.Tooltip("label:N", title="method"), alt.Tooltip("text:N", title=what)]

    def draw(rows: Rows) -> alt.LayerChart:
        base, place = alt.Chart(named(data)), rows.place()
        layers = rows.names(once(base))
        if lines:
            rule = base.mark_rule(style="strong", strokeWidth=2.5)
            layers.append(rule.encode(x=alt.X("low:Q").title(title), x2="high:Q", tooltip=tooltip, **place))
        layers.append(base.mark_point(style="strong", filled=True, size=64).encode(x=x, tooltip=tooltip, **place))
        return alt.LayerChart(layer=layers, height=rows.height)

    return fitted([row["label"] for row in rows], draw)


def with_lines(drawn: Sequence[Row]) -> list[Row]:
    """Return rows of data with their names in lines, for narrow boxes."""
    lines = folded([row["label"] for row in drawn])
    return [{**row, "folded": name} for row, name in zip(drawn, lines, strict=True)]


def once(base: alt.Chart) -> alt.Chart:
    """Keep one of the marks of each row: it has one name."""
    kept: alt.Chart = base.transform_aggregate(groupby=["row", "label", "folded"])
    return kept
