"""Do heads that look at the sink matter? Every head's sink attention against what is lost without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from omnisink.report.charts.head_map import head_map
from omnisink.report.charts.lines import NOTHING, layer_color, span, value_axis, zero_line
from omnisink.report.charts.rows import Rows
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import bounded, extremes, present, shown
from omnisink.results.wording import CHANGE, POINTS, SINGLE, number

_EFFECT = Column("effect", "loss change (nats)", CHANGE, ("low", "high"))
_ACCURACY = Column("accuracy_change", "accuracy change (points)", POINTS, ("accuracy_low", "accuracy_high"))
_RHO = Column("rho", "correlation", "+.2f", ("low", "high"))


def heads(section: Mapping[str, Any]) -> list[Figure]:
    """Draw the attention of all heads, what each is worth, and the correlation over them.

    Parameters
    ----------
    section : mapping
        ``heads`` of the study's results.

    Returns
    -------
    list of Figure
        One for each part that has rows.
    """
    figures = []
    # Older studies kept the attention of the heads only that were zeroed.
    if attention := section.get("sink_attention") or section.get("heads"):
        figures.append(head_map(attention))
    if section.get("heads"):
        figures.append(_scatter(section["heads"]))
    if section.get("correlation"):
        figures.append(_correlation(section["correlation"]))
    return figures


def _scatter(rows: Sequence[Row]) -> Figure:
    last = max((int(row["layer"]) for row in present(rows, "layer")), default=0)
    most = max((row["sink_attention"] for row in present(rows, "sink_attention")), default=0.0)
    controls = [
        alt.param(name=name, value=value, bind=alt.binding_range(min=0, max=last, step=1, name=label))
        for name, value, label in (("from_layer", 0, "From layer "), ("to_layer", last, "to layer "))
    ]
    points = (
        alt.Chart(named("heads"))
        .transform_filter("datum.layer >= from_layer && datum.layer <= to_layer")
        .mark_point(size=40, opacity=0.85)
        .encode(
            x=alt.X("sink_attention:Q")
            .title("Attention to the sink (%)")
            .scale(domain=[0, most or 1], nice=True)
            .axis(format=".2~%"),
            y=value_axis("Loss change (nats)", field="effect").scale(
                domain=span(rows, "effect"), nice=True, padding=6
            ),
            color=layer_color(rows),
            tooltip=[
                alt.Tooltip("layer:Q", title="layer", format="d"),
                alt.Tooltip("head:Q", title="head", format="d"),
                alt.Tooltip("sink_attention:Q", title="attention to the sink", format=".1%"),
                alt.Tooltip("loss:N", title="loss change"),
                alt.Tooltip("accuracy:N", title="accuracy change"),
            ],
        )
    )
    chart = alt.LayerChart(layer=[zero_line(), points], height=320)
    fields = ("layer", "head", "sink_attention", "effect")
    drawn = [
        {field: row.get(field) for field in fields} | {"loss": shown(row, _EFFECT), "accuracy": shown(row, _ACCURACY)}
        for row in present(rows, "effect")
        if row.get("sink_attention") is not None
    ]
    said = (
        f"{len(rows)} heads.",
        extremes(rows, "sink_attention", ".1%", _where, "The attention to the sink"),
        extremes(rows, "effect", CHANGE, _where, "The loss change without the head, in nats,")
        if bounded(rows)
        else SINGLE,
    )
    return Figure(
        name="heads",
        title="Attention to the sink, and what a head is worth",
        caption=(
            "Each point is a head: to the right, heads that look at the sink more; above the line, heads whose removal"
            " makes the loss larger."
        ),
        alternative=" ".join(said),
        chart=chart.add_params(*controls) if last else chart.add_params(*(_fixed(c) for c in controls)),
        data={"heads": drawn} | NOTHING,
        columns=(
            Column("layer", "layer", "d"),
            Column("head", "head", "d"),
            Column("sink_attention", "attention to the sink", ".1%"),
            _EFFECT,
            _ACCURACY,
        ),
        rows=rows,
        many_marks=len(rows) > 2_000,
    )


def _fixed(control: alt.Parameter) -> alt.Parameter:
    """Return the parameter without its control: there is one layer, and nothing to choose."""
    return alt.param(name=control.name, value=0)


def _correlation(rows: Sequence[Row]) -> Figure:
    drawn = [{**row, "text": shown(row, _RHO)} for row in present(rows, "rho")]
    base = alt.Chart(named("correlation"))
    lines = Rows(max(1, len(drawn)), name="over:N")
    marks = lines.place("over:N", counted=False) | {
        "tooltip": [
            alt.Tooltip("over:N", title="over"),
            alt.Tooltip("text:N", title="correlation"),
            alt.Tooltip("heads:Q", title="heads"),
            alt.Tooltip("items:Q", title="items"),
        ]
    }
    x = (
        alt.X("rho:Q")
        .title("Spearman's rank correlation (−1 to 1)")
        .scale(domain=[-1, 1])
        .axis(grid=True, values=[-1, -0.5, 0, 0.5, 1], format=".1~f")
    )
    layers = [zero_line("x"), *lines.names(base, "over:N", counted=False)]
    layers.append(base.mark_point(style="strong", size=64).encode(x=x, **marks))
    if bounded(drawn):
        line = base.transform_filter("isValid(datum.low) && isValid(datum.high)").mark_rule(
            style="strong", strokeWidth=2.5
        )
        layers.append(line.encode(x=alt.X("low:Q").title(x["title"]), x2="high:Q", **marks))
    return Figure(
        name="head-correlation",
        title="Do the two go together?",
        caption="Correlation over heads of the attention to the sink with the loss change"
        + (", and its 95% interval." if bounded(rows) else "."),
        alternative=" ".join(
            f"Over {row.get('over')}: {shown(row, _RHO)}, from {number(row.get('heads'))} heads and"
            f" {number(row.get('items'))} items."
            for row in rows
        ),
        chart=alt.LayerChart(layer=layers, height=lines.height),
        data={"correlation": drawn} | NOTHING,
        columns=(Column("over", "over"), Column("heads", "heads", "d"), Column("items", "items", "d"), _RHO),
        rows=rows,
        table_open=True,
    )


def _where(row: Row) -> str:
    return f"at layer {number(row.get('layer'))}, head {number(row.get('head'))}"
