"""Keeping a part of the tokens: those the sink's query looks at, against as many at random."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from omnisink.report.charts.intervals import (
    ACCURACY,
    LOSS,
    PANELS,
    P,
    change_tooltip,
    changes_in_words,
    drawn_changes,
    given,
    has_intervals,
    has_lines,
    measured,
    reach,
    unmoved,
)
from omnisink.report.charts.lines import NOTHING, Choice, distinct, zero_line
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import present
from omnisink.results.wording import SINGLE, number

_COLUMNS = (
    Column("layer", "from layer", "d"),
    Column("keep", "tokens kept", ".0%"),
    Column("by", "chosen by"),
    Column("items", "items", "d"),
    LOSS,
    ACCURACY,
    *P,
)


def pruning(arms: Sequence[Row]) -> Figure:
    """Draw the change of loss and accuracy against the share of tokens that is kept.

    Parameters
    ----------
    arms : sequence of mappings
        Arms with `layer`, `keep` and `by`; at least one.

    Returns
    -------
    Figure
        Named ``pruning``, with a control for the layer where there are several.
    """
    measures = measured(arms)
    layers = sorted({int(arm["layer"]) for arm in present(arms, "layer")})
    choice = Choice("layer", "Pruned from layer", layers) if len(layers) > 1 else None
    drawn = [_drawn(arm) for arm in present(arms, "keep")]
    chart = alt.vconcat(*(_panel(m, choice, drawn, m == measures[-1]) for m in measures), spacing=12)
    chart = chart.resolve_scale(color="shared", shape="shared")
    return Figure(
        name="pruning",
        title="Pruning by the sink's query",
        caption=(
            "From one layer on, only a part of the tokens is kept: those the sink's query looks at most, or as many at"
            " random. Points are changes against the baseline"
            + (", upright lines their 95% intervals." if has_intervals(arms) else f". {SINGLE}")
        ),
        alternative=" ".join(_in_words(arm) for arm in arms),
        chart=chart if choice is None else chart.add_params(choice.parameter),
        data={"pruning": drawn} | NOTHING,
        columns=given(_COLUMNS, arms),
        rows=arms,
        beside=92,
        note=unmoved(arms),
    )


def _drawn(arm: Row) -> Row:
    # Beside each other: intervals at the same share would hide one another.
    beside = 0.006 if arm.get("by") == "random" else -0.006
    return (
        {f: arm.get(f) for f in ("layer", "keep", "by", "p_holm")}
        | drawn_changes(arm)
        | {"kept": arm["keep"] + beside}
    )


def _panel(measure: str, choice: Choice | None, rows: Sequence[Row], lowest: bool) -> alt.LayerChart:
    title, _ = PANELS[measure]
    base = alt.Chart(named("pruning")).transform_filter(f"isValid(datum.{measure})")
    if choice is not None:
        base = base.transform_filter(choice.test)
    shares = sorted({row["keep"] for row in rows}) or [0.5]
    ends = [max(0.0, shares[0] - 0.05), min(1.0, shares[-1] + 0.05)]
    x = alt.X("kept:Q").title("Tokens kept (%)" if lowest else None).scale(domain=ends, nice=False)
    x = x.axis(format=".0~%", values=shares, labels=lowest, ticks=lowest)
    y = alt.Y(f"{measure}:Q").title(title.replace("percentage ", "")).axis(tickCount=5)
    y = y.scale(domain=reach(rows, measure), nice=True, padding=8)
    ways = distinct(rows, "by")
    order = alt.Scale(domain=ways)
    # The points make the legend; see `layer_lines`.
    stroke = alt.Stroke("by:N", scale=alt.Scale(domain=[*ways, ""]), legend=None)
    tooltip = [
        alt.Tooltip("by:N", title="chosen by"),
        alt.Tooltip("keep:Q", title="kept", format=".0%"),
        alt.Tooltip("layer:Q", title="from layer", format="d"),
        *change_tooltip(),
        alt.Tooltip("p_holm:Q", title="p (Holm)", format=".2~g"),
    ]
    layers = [
        zero_line(),
        base.mark_line(strokeWidth=1, opacity=0.6, aria=False).encode(x=x, y=y, stroke=stroke),
        base.mark_point(size=60).encode(
            x=x,
            y=y,
            color=alt.Color("by:N", title="Tokens chosen by", scale=order),
            shape=alt.Shape("by:N", title="Tokens chosen by", scale=order),
            tooltip=tooltip,
        ),
    ]
    if has_lines(rows, measure):
        ends_of = alt.Y(f"{measure}_low:Q").title(y["title"])
        lines = base.mark_rule(strokeWidth=2, aria=False)
        layers.insert(2, lines.encode(x=x, y=ends_of, y2=f"{measure}_high:Q", stroke=stroke))
    return alt.LayerChart(layer=layers, height=170)


def _in_words(arm: Row) -> str:
    head = f"Layer {number(arm.get('layer'))}, {number(arm.get('keep'), '.0%')} kept by {arm.get('by')}"
    return f"{head}: {changes_in_words(arm)}."
