"""The sink's largest key channels set to zero: what is left of the attention to it, and what changes."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from omnisink.report.charts.intervals import intervals
from omnisink.report.charts.rows import STEP, room_for, row_names, row_place
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import present
from omnisink.results.wording import number

_COUNT = Column("n", "channels set to zero", "d")
_MASS = Column("mass", "attention to the sink that is left", ".1%")


def zero_k(arms: Sequence[Row]) -> list[Figure]:
    """Draw the attention that is left, where it was measured, and the change of loss and accuracy.

    Parameters
    ----------
    arms : sequence of mappings
        Arms with `n` and `mass`; at least one.

    Returns
    -------
    list of Figure
        ``zero-k-mass`` and ``zero-k``.
    """
    changed = intervals(
        "zero-k",
        "What changes without the sink's largest key channels",
        arms,
        caption="Channels of the sink's key are set to zero.",
        extra=(_COUNT, _MASS),
        in_order=True,
    )
    return [_left(arms), changed] if present(arms, "mass") else [changed]


def _left(arms: Sequence[Row]) -> Figure:
    rows = [
        {"row": i, "label": str(arm.get("label") or arm.get("arm") or ""), "mass": arm["mass"]}
        for i, arm in enumerate(present(arms, "mass"))
    ]
    base = alt.Chart(named("zero-k-mass"))
    x = alt.X("mass:Q").title("Attention to the sink (%)").scale(zero=True).axis(grid=True, format=".2~%")
    place = row_place("row:O", len(rows))
    tooltip = [alt.Tooltip("label:N", title="condition"), alt.Tooltip("mass:Q", title="attention left", format=".1%")]
    bars = base.mark_bar(style="strong", height=6).encode(x=x, tooltip=tooltip, **place)
    return Figure(
        name="zero-k-mass",
        title="The attention that is left without the sink's largest key channels",
        caption="Attention that other tokens still place on the sink when channels of its key are set to zero.",
        alternative=" ".join(f"{row['label']}: {number(row['mass'], '.1%')}." for row in rows),
        chart=alt.LayerChart(layer=[bars, *row_names(base, "label:N", place)], height=STEP * len(rows)),
        data={"zero-k-mass": rows},
        columns=(Column("label", "what was done"), _COUNT, _MASS),
        rows=arms,
        narrowest=room_for(row["label"] for row in rows),
    )
