"""The sink map: every token at every layer, by how large it is or how much attention it receives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, overload

import altair as alt
import numpy as np

from omnisink.plotting.palette import MODALITIES
from omnisink.report.cleaning import shown_token
from omnisink.report.example import Bin, Example, Matrix, rounded
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.results.wording import listed, number, spaced

_NONE = "none"
#: Labels of the legend: numbers for |h|, per cent for attention.
_STRENGTH = "brightness === 'magnitude' ? format(datum.value, ',.2~r') : format(datum.value, '.1~p')"
_COLUMNS = (
    Column("layer", "layer", "d"),
    Column("position", "position", "d"),
    Column("token", "token"),
    Column("modality", "modality"),
    Column("begins", "begins (s)", ".2f"),
    Column("ends", "ends (s)", ".2f"),
    Column("magnitude", "largest |h|", ",.1f"),
    Column("received", "attention received", ".3g"),
    Column("marked", "marked by", code=True),
)


def sink_map(example: Example) -> Figure:
    """Draw tokens along and layers upward; colour is modality, strength the size, an outline a marked sink.

    Parameters
    ----------
    example : Example
        With at least one token and one layer.

    Returns
    -------
    Figure
        Named ``sink-map``. Its table begins with the largest cells.
    """
    bins = example.bins()
    gathered = max(b.end - b.begin for b in bins)
    criteria = list(example.marked)
    brightness = alt.param(
        name="brightness",
        value="magnitude",
        bind=alt.binding_radio(
            options=["magnitude", "received"], labels=["largest |h|", "attention received"], name="Strength shows "
        ),
    )
    outlined = alt.param(
        name="outlined",
        value=next((c for c in criteria if example.marked[c]), _NONE),
        bind=alt.binding_select(
            options=[*criteria, _NONE], labels=[*map(spaced, criteria), _NONE], name="Outline sinks by "
        ),
    )
    note = (
        f"{len(example.tokens):,} tokens are too many to draw one by one: each column gathers {gathered} neighbours"
        " and shows the largest number among them. The CSV file has every token."
    )
    return Figure(
        name="sink-map",
        title="Every token at every layer",
        caption=(
            "Each column is a token of the prompt and each row a layer, the first at the bottom. The stronger the"
            " colour, the larger the number, on a logarithmic scale; outlined cells are marked as sinks."
        ),
        alternative=_in_words(example),
        chart=_chart(example, bins).add_params(brightness, outlined),
        data={
            "tokens": _token_rows(example, bins),
            "outlines": _outline_rows(example, bins),
            "frames": example.frames,
        },
        columns=_COLUMNS,
        rows=_Cells(example),
        narrowest=640,
        many_marks=True,
        note=note if gathered > 1 else "",
    )


def _chart(example: Example, bins: Sequence[Bin]) -> alt.LayerChart:
    layers = example.layers
    floors = {"magnitude": _floor(example.magnitude), "received": _floor(example.received)}
    x = alt.X(
        "begin:Q",
        title="Position in the prompt (tokens)",
        scale=alt.Scale(domain=[0, bins[-1].end], nice=False),
        axis=alt.Axis(format="~s" if bins[-1].end > 9_999 else "d", tickMinStep=1),
    )
    y = alt.Y(
        "low:Q",
        title="Layer",
        scale=alt.Scale(domain=[-0.5, layers - 0.5], nice=False, zero=False),
        axis=alt.Axis(grid=False, tickMinStep=1, format="d", values=list(range(0, layers, -(-layers // 12)))),
    )
    strength = (
        f"brightness === 'magnitude' ? max(datum.magnitude, {floors['magnitude']})"
        f" : max(datum.received, {floors['received']})"
    )
    used = [m for m in MODALITIES if any(b.modality == m for b in bins)]
    cells = (
        alt.Chart(named("tokens"))
        .transform_lookup("frame", from_=alt.LookupData(data=named("frames"), key="frame", fields=["image"]))
        .transform_flatten(["layer", "magnitude", "received"])
        .transform_calculate(
            low="datum.layer - 0.5", high="datum.layer + 0.5", strength=strength, image="datum.image || ''"
        )
        .mark_rect(aria=False)
        .encode(
            x=x,
            x2="end:Q",
            y=y,
            y2="high:Q",
            color=alt.Color(
                "modality:O", title=None, scale=alt.Scale(domain=list(MODALITIES)), legend=alt.Legend(values=used)
            ),
            opacity=alt.Opacity(
                "strength:Q",
                title="Strength (logarithmic)",
                scale=alt.Scale(type="log", range=[0.05, 1], nice=False),
                legend=alt.Legend(
                    labelExpr=_STRENGTH, tickCount=5, symbolType="square", symbolSize=120, symbolStrokeWidth=0
                ),
            ),
            tooltip=[
                alt.Tooltip("token:N", title="token"),
                alt.Tooltip("kind:N", title="modality"),
                alt.Tooltip("layer:Q", title="layer", format="d"),
                alt.Tooltip("magnitude:Q", title="largest |h|", format=",.4~g"),
                alt.Tooltip("received:Q", title="attention received", format=".3~p"),
                alt.Tooltip("image:N", title="image"),
            ],
        )
    )
    outlines = (
        alt.Chart(named("outlines"))
        .transform_filter("datum.criterion === outlined")
        .mark_line(style="outline", strokeJoin="miter", aria=False)
        .encode(x="x:Q", y="y:Q", detail="run:N", order="corner:Q", tooltip=alt.value(None))
    )
    return alt.LayerChart(layer=[cells, outlines], height=min(26, max(6, 420 // layers)) * layers)


def _floor(values: Matrix) -> float:
    """Return where the logarithmic scale begins: the smallest number, but no more than four decades down."""
    positive = values[values > 0]
    return float(f"{max(positive.min(), positive.max() / 1e4):.3g}") if positive.size else 1.0


def _token_rows(example: Example, bins: Sequence[Bin]) -> list[Row]:
    layers = list(range(example.layers))

    def largest(values: Matrix, b: Bin) -> list[float | None]:
        column = values[:, b.begin : b.end]
        return rounded(np.where(np.isnan(column).all(axis=1), np.nan, np.nan_to_num(column, nan=-np.inf).max(axis=1)))

    return [
        {
            "begin": b.begin,
            "end": b.end,
            "token": b.token,
            "kind": b.kind,
            "modality": b.modality,
            "frame": b.frame,
            "layer": layers,
            "magnitude": largest(example.magnitude, b),
            "received": largest(example.received, b),
        }
        for b in bins
    ]


def _outline_rows(example: Example, bins: Sequence[Bin]) -> list[Row]:
    """Return the corners of a box for every run of neighbouring layers at which a column is marked."""
    size = bins[0].end - bins[0].begin
    rows: list[Row] = []
    for criterion, cells in example.marked.items():
        columns = sorted({(position // size, layer) for layer, position in cells})
        runs = groupby(enumerate(columns), key=lambda pair: (pair[1][0], pair[1][1] - pair[0]))
        for run, ((column, _), group) in enumerate(runs):
            layers = [layer for _, (_, layer) in group]
            b, low, high = bins[column], layers[0] - 0.5, layers[-1] + 0.5
            corners = [(b.begin, low), (b.end, low), (b.end, high), (b.begin, high), (b.begin, low), (b.end, low)]
            rows += [
                {"criterion": criterion, "run": run, "corner": i, "x": x, "y": y} for i, (x, y) in enumerate(corners)
            ]
    return rows


def _in_words(example: Example) -> str:
    sentences = [f"{len(example.tokens):,} tokens at {example.layers} layers."]
    for values, what in ((example.magnitude, "The largest |h|"), (example.received, "The most attention received")):
        if np.isfinite(values).any():
            layer, position = np.unravel_index(np.nanargmax(values), values.shape)
            sentences.append(
                f"{what} is {number(float(values[layer, position]))}, at layer {layer}, token"
                f" {example.name(int(position))}."
            )
    for criterion, cells in example.marked.items():
        layers, positions = {layer for layer, _ in cells}, sorted({p for _, p in cells})
        if not cells:
            sentences.append(f"{spaced(criterion).capitalize()} marks no token.")
            continue
        where = listed([str(p) for p in positions[:8]]) + (" and others" if len(positions) > 8 else "")
        sentences.append(
            f"{spaced(criterion).capitalize()} marks {len(positions)} of them, between layers {min(layers)} and"
            f" {max(layers)}, at position{'s' if len(positions) > 1 else ''} {where}."
        )
    return " ".join(sentences)


class _Cells(Sequence[Row]):
    """The cells of the map as rows, the largest |h| first, made when they are asked for: there may be a million."""

    def __init__(self, example: Example) -> None:
        self._example = example
        sizes = np.nan_to_num(example.magnitude, nan=-1.0).ravel()
        self._order = np.argsort(-sizes, kind="stable")
        self._marked: dict[tuple[int, int], list[str]] = {}
        for criterion, cells in example.marked.items():
            for cell in cells:
                self._marked.setdefault(cell, []).append(criterion)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        layer, position = divmod(int(self._order[index]), len(self._example.tokens))
        token = self._example.tokens[position]
        magnitude, received = self._example.magnitude[layer, position], self._example.received[layer, position]
        return {
            "layer": layer,
            "position": position,
            "token": shown_token(str(token.get("text", ""))),
            "modality": token["modality"],
            "begins": token.get("begins"),
            "ends": token.get("ends"),
            "magnitude": None if np.isnan(magnitude) else float(magnitude),
            "received": None if np.isnan(received) else float(received),
            "marked": ", ".join(self._marked.get((layer, position), [])),
        }
