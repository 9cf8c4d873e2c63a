"""Which heads look at the sink: the attention mass on it, a cell for every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import altair as alt

from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import extremes, present
from omnisink.results.wording import number

#: Height of the cells together at most, of one cell at most and at least, in pixels.
_HEIGHT, _LARGEST, _SMALLEST = 420, 26, 7


def head_map(rows: Sequence[Row]) -> Figure:
    """Draw layers along and heads upward; colour is the attention to the sink.

    Parameters
    ----------
    rows : sequence of mappings
        With ``layer``, ``head`` and ``sink_attention``, 0 to 1; at least one. A layer may have fewer heads than
        another, and a number may be missing: such cells stay empty.

    Returns
    -------
    Figure
        Named ``head-map``.
    """
    known = [row for row in present(rows, "sink_attention") if _placed(row)]
    layers, heads = ({row[key] for row in known} or {0} for key in ("layer", "head"))
    step = min((b - a for a, b in pairwise(sorted(layers))), default=1)
    tall = min(_LARGEST, max(_SMALLEST, _HEIGHT // (max(heads) + 1))) * (max(heads) + 1)
    # A pale cell must mean little attention, not the least of this picture: the scale begins at nothing.
    most = max((row["sink_attention"] for row in known), default=0.0)
    cells = (
        alt.Chart(named("head-map"))
        .mark_rect(aria=False, x2Offset=0.6, y2Offset=-0.6)
        .encode(
            x=alt.X("left:Q")
            .title("Layer")
            .scale(domain=[min(layers) - step / 2, max(layers) + step / 2], nice=False, zero=False)
            .axis(tickMinStep=1, format="d"),
            x2="right:Q",
            y=alt.Y("low:Q")
            .title("Head")
            .scale(domain=[-0.5, max(heads) + 0.5], nice=False, zero=False)
            .axis(grid=False, format="d", values=list(range(0, max(heads) + 1, -(-(max(heads) + 1) // 12)))),
            y2="high:Q",
            fill=alt.Fill("sink_attention:Q")
            .title("Attention to the sink (%)")
            .scale(domain=[0, max(0.01, most)], nice=False)
            .legend(format=".2~%", tickCount=4, gradientLength=240),
            tooltip=[
                alt.Tooltip("layer:Q", title="layer", format="d"),
                alt.Tooltip("head:Q", title="head", format="d"),
                alt.Tooltip("sink_attention:Q", title="attention to the sink", format=".1%"),
            ],
        )
    )
    return Figure(
        name="head-map",
        title="Which heads look at the sink",
        caption=(
            "Each cell is a head, its layer along and its number upward; colour is how much of its attention the other"
            " tokens place on the sinks, mean over items."
        ),
        alternative=" ".join((
            f"{len(known)} heads at {len(layers)} layers.",
            extremes(known, "sink_attention", ".1%", _where, "The attention to the sink"),
            _halves(known),
        )),
        chart=alt.LayerChart(layer=[cells], height=tall),
        data={
            "head-map": [
                {key: row[key] for key in ("layer", "head", "sink_attention")}
                | {"left": row["layer"] - step / 2, "right": row["layer"] + step / 2}
                | {"low": row["head"] - 0.5, "high": row["head"] + 0.5}
                for row in known
            ]
        },
        columns=(
            Column("layer", "layer", "d"),
            Column("head", "head", "d"),
            Column("sink_attention", "attention to the sink", ".1%"),
        ),
        rows=rows,
        many_marks=len(known) > 600,
    )  # fmt: skip


def _placed(row: Row) -> bool:
    return isinstance(row.get("layer"), int) and isinstance(row.get("head"), int)


def _halves(rows: Sequence[Row]) -> str:
    """Say how many heads give the sink more than half of their attention."""
    most = sum(row["sink_attention"] > 0.5 for row in rows)
    return f"{most} of {len(rows)} heads give it more than half of their attention."


def _where(row: Row) -> str:
    return f"at layer {number(row.get('layer'))}, head {number(row.get('head'))}"
