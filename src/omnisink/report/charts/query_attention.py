"""Attention of queries: the common part of the charts along a clip and along a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from omnisink.plotting.palette import MODALITIES
from omnisink.report.example import Example, Matrix, rounded
from omnisink.report.figure import Column, Row, named
from omnisink.report.words import at_layer, extremes

#: The queries that are drawn: name of their field, title of the panel, and name in a sentence.
QUERIES = {
    "sink": ("Where the sink's query looks", "the sink's query"),
    "last": ("Where the last prompt token looks", "the last prompt token"),
}
COLUMNS = tuple(Column(name, f"attention of {words}", ".3g") for name, (_, words) in QUERIES.items())


def total(values: Matrix) -> Matrix:
    """Add up the columns of (L, n), leaving NaN out; NaN where a layer has nothing else. Returns (L,)."""
    return np.where(np.isnan(values).all(axis=1), np.nan, np.nansum(values, axis=1))


def by_layer(example: Example, gather: Callable[[Matrix], Matrix]) -> dict[str, list[Any]]:
    """Return what `gather` makes of each query's attention (L, S), a number for each layer, beside the layers."""
    return {
        "layer": list(range(example.layers)),
        "sink": rounded(gather(example.sink_query)),
        "last": rounded(gather(example.last_query)),
    }


def unfolded(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """Return a row for each layer of rows made with `by_layer`."""
    return [
        {"layer": layer} | {key: row[key] for key in keys} | {"sink": sink, "last": last}
        for row in rows
        for layer, sink, last in zip(row["layer"], row["sink"], row["last"], strict=True)
    ]


def layer_with_most(example: Example, members: Sequence[int]) -> int:
    """Return the layer at which the sink's query, or else the last token, gives these tokens most attention."""
    for values in (example.sink_query, example.last_query):
        sums = np.nan_to_num(total(values[:, list(members)]), nan=-1.0)
        if sums.max(initial=-1.0) > 0:
            return int(sums.argmax())
    return 0


def layer_control(example: Example, start: int) -> alt.Parameter:
    """Return the control ``at``, which chooses the layer."""
    return alt.param(
        name="at", value=start, bind=alt.binding_range(min=0, max=example.layers - 1, step=1, name="Layer ")
    )


def silent(example: Example) -> list[Row]:
    """Return the layers at which there is no sink, so no query of it."""
    return [{"layer": i} for i in range(example.layers) if np.isnan(example.sink_query[i]).all()]


def panel(query: str, marks: Sequence[alt.Chart], height: int) -> alt.LayerChart:
    """Give the marks of a query their title, and words where there is nothing to draw; needs the data ``silent``."""
    words = (
        alt.Chart(named("silent"))
        .transform_filter("datum.layer === at")
        .mark_text(style="soft", align="left", aria=False)
        .encode(x=alt.value(6), y=alt.value(height // 2), text=alt.value("There is no sink at this layer."))
    )
    layers = [*marks, words] if query == "sink" else list(marks)
    return alt.LayerChart(layer=layers, title=QUERIES[query][0], height=height)


def modality_color(rows: Sequence[Row]) -> alt.Color:
    """Return the colour of modalities, with those that occur in the legend."""
    used = {row["modality"] for row in rows}
    legend = alt.Legend(values=[m for m in MODALITIES if m in used], symbolOpacity=1)
    return alt.Color("modality:O", title=None, scale=alt.Scale(domain=list(MODALITIES)), legend=legend)


def bare(x: alt.X) -> alt.X:
    """Return the axis without labels, for a panel that stands above another with the same axis."""
    copy: alt.X = x.copy()
    copy["title"], copy["axis"] = None, alt.Axis(labels=False, ticks=False)
    return copy


def in_words(rows: Sequence[Row], start: int, where: Callable[[Mapping[str, Any]], str]) -> str:
    """Say where each query looks most at the first layer shown, and at which layer the sink's looks most."""
    sentences = [f"Shown first is layer {start}."]
    chosen = [row for row in rows if row["layer"] == start]
    for query, (_, words) in QUERIES.items():
        sentences.append(extremes(chosen, query, ".2%", where, f"The attention of {words}"))
    sums: dict[int, float] = {}
    for row in rows:
        if row["sink"] is not None:
            sums[row["layer"]] = sums.get(row["layer"], 0.0) + row["sink"]
    shares = [{"layer": layer, "sink": value} for layer, value in sums.items()]
    sentences.append(extremes(shares, "sink", ".1%", at_layer, "In all, what the sink's query gives to them"))
    return " ".join(sentences)
