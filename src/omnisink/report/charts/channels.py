"""The channels of the residual stream that are massive."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from omnisink.report.charts.lines import log_axis
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import extremes
from omnisink.results.wording import number

#: How near two points may be before the second goes without a name: share of prompts, and factor of the peak.
_NEAR = (0.09, 1.5)


def channels(rows: Sequence[Row]) -> Figure:
    """Draw how often each channel is massive, and by how much.

    Parameters
    ----------
    rows : sequence of mappings
        ``channels`` of the study's identification; at least one.

    Returns
    -------
    Figure
        Named ``channels``.
    """
    names = _names(rows)
    data = [
        {"channel": row.get("channel"), "prompts": row.get("prompts"), "peak": row.get("peak"), "name": name}
        | {"use": "taken as sink dimension" if row.get("chosen") else "not taken"}
        for row, name in zip(rows, names, strict=True)
        if row.get("prompts") is not None and (row.get("peak") or 0) > 0
    ]
    taken = ", ".join(number(row.get("channel"), "d") for row in rows if row.get("chosen")) or "none"
    x = alt.X("prompts:Q").title("Prompts in which it is massive (%)").scale(domain=[0, 1], padding=14)
    y = log_axis("Mean peak (|h| / RMS)", rows, ["peak"], "peak")
    base = alt.Chart(named("channels")).encode(x=x.axis(format=".0~%"), y=y)
    order = alt.Scale(domain=["not taken", "taken as sink dimension"])
    points = base.mark_point(size=64).encode(
        color=alt.Color("use:N", title=None, scale=order),
        shape=alt.Shape("use:N", title=None, scale=order),
        tooltip=[
            alt.Tooltip("channel:N", title="channel"),
            alt.Tooltip("prompts:Q", title="prompts", format=".0%"),
            alt.Tooltip("peak:Q", title="mean peak", format=",.3~f"),
            alt.Tooltip("use:N", title="use"),
        ],
    )
    labels = base.mark_text(dy=-11, fontSize=11, aria=False).encode(text="name:N")
    return Figure(
        name="channels",
        title="The channels that carry the sink",
        caption="Each point is a channel of the residual stream: how often it is massive, and how far it stands out.",
        alternative=(
            extremes(rows, "peak", ",.1f", lambda r: f"in channel {number(r.get('channel'), 'd')}", "The mean peak")
            + f" Taken as sink dimensions: {taken}."
        ),
        chart=alt.LayerChart(layer=[points, labels], height=240),
        data={"channels": data},
        columns=(
            Column("channel", "channel", "d"),
            Column("prompts", "prompts", ".0%"),
            Column("peak", "mean peak (|h| / RMS)", ",.1f"),
            Column("chosen", "taken as sink dimension"),
        ),
        rows=rows,
    )


def _names(rows: Sequence[Row]) -> list[str]:
    """Name the channels that were taken and those that stand out most, but no two whose names would overlap."""
    names = [""] * len(rows)
    placed: list[Row] = []
    for i in sorted(range(len(rows)), key=lambda i: (not rows[i].get("chosen"), -(rows[i].get("peak") or 0.0))):
        row = rows[i]
        if not row.get("peak") or row.get("prompts") is None:
            continue
        if not any(
            abs(row["prompts"] - other["prompts"]) < _NEAR[0] and 1 / _NEAR[1] < row["peak"] / other["peak"] < _NEAR[1]
            for other in placed
        ):
            names[i] = str(row.get("channel"))
            placed.append(row)
    return names
