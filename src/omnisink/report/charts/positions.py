"""Chart of attention along a prompt that has no clip."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from omnisink.report.charts.query_attention import (
    COLUMNS,
    QUERIES,
    bare,
    by_layer,
    in_words,
    layer_control,
    layer_with_most,
    modality_color,
    panel,
    silent,
    total,
    unfolded,
)
from omnisink.report.example import Bin, Example
from omnisink.report.figure import Column, Figure, Row, named

#: Attention below this is drawn at this, on a logarithmic axis.
_FLOOR = 1e-5


def positions(example: Example) -> Figure:
    """Draw attention along the positions of a prompt, as points on a logarithmic axis.

    Parameters
    ----------
    example : Example
        With at least one token.

    Returns
    -------
    Figure
        Named ``positions``, with a control for the layer; it begins at the layer at which the sink's query looks most
        at tokens other than the first.
    """
    bins = example.bins()
    start = layer_with_most(example, list(range(1, len(example.tokens))) or [0])
    rows = [_row(example, b) for b in bins]
    long = unfolded(rows, ("position", "token", "modality"))
    x = (
        alt.X("position:Q")
        .title("Position in the prompt (tokens)")
        .scale(domain=[0, bins[-1].end], nice=False)
        .axis(format="~s" if bins[-1].end > 9_999 else "d", tickMinStep=1)
    )
    return Figure(
        name="positions",
        title="Attention along the prompt",
        caption=(
            "How much attention each token gets from the sink's query and from the last token of the prompt, in one"
            f" layer. The axis is logarithmic; less than {_FLOOR:.3%} is drawn at the bottom."
        ),
        alternative=in_words(long, start, lambda r: f"at {r['token']}"),
        chart=alt.vconcat(_points("sink", bare(x), rows), _points("last", x, rows), spacing=10)
        .resolve_scale(color="shared")
        .add_params(layer_control(example, start)),
        data={"positions": rows, "silent": silent(example)},
        columns=(
            Column("layer", "layer", "d"),
            Column("position", "position", "d"),
            Column("token", "token"),
            Column("modality", "modality"),
            *COLUMNS,
        ),
        rows=long,
        narrowest=560,
        many_marks=True,
        note="Neighbouring tokens are gathered; a point is their mean." if bins[0].end > 1 else "",
    )


def _row(example: Example, b: Bin) -> Row:
    size = b.end - b.begin
    attention = by_layer(example, lambda values: total(values[:, b.begin : b.end]) / size)
    return {"position": b.begin, "token": b.token, "modality": b.modality, **attention}


def _points(query: str, x: alt.X, rows: Sequence[Row]) -> alt.LayerChart:
    points = (
        alt.Chart(named("positions"))
        .transform_flatten(["layer", "sink", "last"])
        .transform_filter(f"datum.layer === at && isValid(datum.{query})")
        .transform_calculate(drawn=f"max(datum.{query}, {_FLOOR})")
        .mark_point(size=22, opacity=0.85, aria=False)
        .encode(
            x=x,
            y=alt.Y("drawn:Q")
            .title("Attention (%)")
            .scale(type="log", domain=[_FLOOR, 1], nice=False)
            .axis(format="~%", values=[1e-4, 1e-2, 1]),
            color=modality_color(rows),
            tooltip=[
                alt.Tooltip("token:N", title="token"),
                alt.Tooltip(f"{query}:Q", title=f"attention of {QUERIES[query][1]}", format=".3~p"),
                alt.Tooltip("layer:Q", title="layer", format="d"),
            ],
        )
    )
    return panel(query, [points], 130)
