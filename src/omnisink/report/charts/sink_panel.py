"""A panel of the sink map: cells by colour, a strip of modalities under them, and the sinks outlined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import altair as alt
import numpy as np

from omnisink.plotting.palette import MODALITIES
from omnisink.report.example import Bin, Example, Matrix, rounded
from omnisink.report.figure import Row, named

#: The numbers that a colour can stand for: name of their field, and what they are called.
QUANTITIES = {"magnitude": "largest |h|", "received": "attention received"}
#: The parameter that chooses between them, and the one that chooses the criterion.
SHOWN, OUTLINED = "brightness", "outlined"
#: Height of the strip of modalities and its distance from the cells, in pixels; the axis begins below it.
STRIP, GAP = 9, 3
#: A cell reaches so far into the next, in pixels: edges between pixels would show as pale lines otherwise.
_OVER = 0.6
#: Labels of the legend: numbers for |h|, per cent for attention.
_LABELS = f"{SHOWN} === 'magnitude' ? format(datum.value, ',.4~r') : format(datum.value, '.2~p')"


@dataclass(frozen=True)
class Drawn:
    """A column of a panel.

    Attributes
    ----------
    bin : Bin
        What it holds.
    begin, end : float
        Where it stands along the axis.
    """

    bin: Bin
    begin: float
    end: float


@dataclass(frozen=True)
class Axes:
    """The axes of a panel.

    Attributes
    ----------
    x, y : channels
        Along columns and layers.
    height : int
        Of the cells, in pixels.
    """

    x: alt.X
    y: alt.Y
    height: int

    @classmethod
    def of(cls, layers: int, width: float, x: alt.Axis | None, height: int, title: str | None = None) -> Axes:
        """Return axes for columns from 0 to `width`; layers run upward."""
        return cls(
            alt.X("begin:Q", title=title, scale=alt.Scale(domain=[0, width], nice=False), axis=x),
            alt.Y(
                "low:Q",
                title="Layer",
                scale=alt.Scale(domain=[-0.5, layers - 0.5], nice=False, zero=False),
                axis=alt.Axis(grid=False, tickMinStep=1, format="d", values=list(range(0, layers, -(-layers // 12)))),
            ),
            height,
        )


def scale_of(values: Matrix, least: float) -> tuple[list[float], list[float]]:
    """Return the ends of a logarithmic scale of colours, and the numbers that its legend names.

    It begins at the smallest number, but no more than four decades below its end, and ends at the largest, or at
    `least` where that is more: a map without a sink must not look as if it had many.
    """
    positive = values[values > 0]
    high = max(float(positive.max()), least) if positive.size else max(least, 1.0)
    low = max(float(positive.min()), high / 1e4) if positive.size else high / 1e4
    low, high = float(f"{low:.3g}"), float(f"{high:.3g}")
    powers = [float(f"1e{n}") for n in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return [low, high], powers[:: -(-len(powers) // 6) or 1]


def _scales(example: Example) -> tuple[str, str, str]:
    """Return expressions for the ends of the scale, its smallest number, and the numbers of its legend."""
    middle = float(np.nanmedian(example.magnitude)) if np.isfinite(example.magnitude).any() else 1.0
    # A token is a sink by its massive activation from a thousand times the median on.
    given = {"magnitude": scale_of(example.magnitude, 1000 * middle), "received": scale_of(example.received, 1.0)}
    ends, names = ({key: value[i] for key, value in given.items()} for i in (0, 1))

    def chosen(by: Mapping[str, object]) -> str:
        return f"{SHOWN} === 'magnitude' ? {by['magnitude']} : {by['received']}"

    return chosen(ends), chosen({key: low for key, (low, _) in ends.items()}), chosen(names)


def cells(data: str, axes: Axes, example: Example) -> alt.Chart:
    """Draw the cells of the data, whose rows are those of `cell_rows`; colours mean the same in every panel."""
    ends, low, names = _scales(example)
    value = f"{SHOWN} === 'magnitude' ? datum.magnitude : datum.received"
    return (
        alt.Chart(named(data))
        .transform_lookup("frame", from_=alt.LookupData(data=named("frames"), key="frame", fields=["image"]))
        .transform_flatten(["layer", *QUANTITIES])
        .transform_calculate(low="datum.layer - 0.5", high="datum.layer + 0.5", value=value)
        .transform_calculate(
            strength=f"isValid(datum.value) ? max(datum.value, ({low})) : null", image="datum.image || ''"
        )
        .mark_rect(aria=False, x2Offset=_OVER, y2Offset=-_OVER)
        .encode(
            x=axes.x,
            x2="end:Q",
            y=axes.y,
            y2="high:Q",
            fill=alt.Fill(
                "strength:Q",
                title=None,
                scale=alt.Scale(type="log", nice=False, domain=alt.ExprRef(ends)),
                legend=alt.Legend(labelExpr=_LABELS, values=alt.ExprRef(names), gradientLength=240),
            ),
            tooltip=[
                alt.Tooltip("token:N", title="token"),
                alt.Tooltip("kind:N", title="modality"),
                alt.Tooltip("layer:Q", title="layer", format="d"),
                alt.Tooltip("magnitude:Q", title=QUANTITIES["magnitude"], format=",.4~g"),
                alt.Tooltip("received:Q", title=QUANTITIES["received"], format=".3~p"),
                alt.Tooltip("image:N", title="image"),
            ],
        )
    )


def cell_rows(example: Example, columns: Sequence[Drawn]) -> list[Row]:
    """Return a row for every column, with a number for every layer."""
    layers = list(range(example.layers))

    def largest(values: Matrix, b: Bin) -> list[float | None]:
        column = values[:, b.begin : b.end]
        return rounded(np.where(np.isnan(column).all(axis=1), np.nan, np.nan_to_num(column, nan=-np.inf).max(axis=1)))

    return [
        {
            "begin": column.begin,
            "end": column.end,
            "token": column.bin.token,
            "kind": column.bin.kind,
            "modality": column.bin.modality,
            "frame": column.bin.frame,
            "layer": layers,
        }
        | {name: largest(getattr(example, name), column.bin) for name in QUANTITIES}
        for column in columns
    ]


def strip(data: str, axes: Axes, used: Sequence[str]) -> alt.Chart:
    """Draw what the columns are, under the cells; rows are those of `strip_rows`."""
    colour = alt.Color(
        "modality:O", title=None, scale=alt.Scale(domain=list(MODALITIES)), legend=alt.Legend(values=list(used))
    )
    top = axes.height + GAP
    return (
        alt.Chart(named(data))
        .mark_rect(aria=False)
        .encode(
            x=axes.x,
            x2="end:Q",
            y=alt.value(top),
            y2=alt.value(top + STRIP),
            color=colour,
            tooltip=alt.Tooltip("modality:N", title="modality"),
        )
    )


def strip_rows(columns: Sequence[Drawn]) -> list[Row]:
    """Return a row for every stretch of neighbouring columns of one modality."""
    rows: list[dict[str, object]] = []
    for column in columns:
        if rows and rows[-1]["modality"] == column.bin.modality and rows[-1]["end"] == column.begin:
            rows[-1]["end"] = column.end
        else:
            rows.append({"begin": column.begin, "end": column.end, "modality": column.bin.modality})
    return list(rows)


def outlines(data: str, axes: Axes) -> alt.Chart:
    """Outline what the chosen criterion marks; rows are those of `outline_rows`."""
    return (
        alt.Chart(named(data))
        .transform_filter(f"datum.criterion === {OUTLINED}")
        .mark_line(style="outline", strokeJoin="miter", aria=False)
        .encode(x=_along("x:Q", axes), y=alt.Y("y:Q"), detail="run:N", order="corner:Q", tooltip=alt.value(None))
    )


def outline_rows(example: Example, columns: Sequence[Drawn]) -> list[Row]:
    """Return the corners of a box for every run of neighbouring layers at which a column is marked."""
    place = {p: i for i, column in enumerate(columns) for p in range(column.bin.begin, column.bin.end)}
    rows: list[Row] = []
    for criterion, marked in example.marked.items():
        held = sorted({(place[position], layer) for layer, position in marked if position in place})
        runs = groupby(enumerate(held), key=lambda pair: (pair[1][0], pair[1][1] - pair[0]))
        for run, ((index, _), group) in enumerate(runs):
            layers = [layer for _, (_, layer) in group]
            a, b, low, high = columns[index].begin, columns[index].end, layers[0] - 0.5, layers[-1] + 0.5
            corners = [(a, low), (b, low), (b, high), (a, high), (a, low), (b, low)]
            rows += [
                {"criterion": criterion, "run": run, "corner": i, "x": x, "y": y} for i, (x, y) in enumerate(corners)
            ]
    return rows


def pointers(data: str, axes: Axes) -> alt.Chart:
    """Point at the marked columns from above: one among thousands is thinner than a pixel."""
    return (
        alt.Chart(named(data))
        .transform_filter(f"datum.criterion === {OUTLINED}")
        .mark_point(style="pointer", shape="triangle-down", size=42, opacity=1, aria=False)
        .encode(x=_along("x:Q", axes), y=alt.value(-5))
    )


def pointer_rows(example: Example, columns: Sequence[Drawn]) -> list[Row]:
    """Return the middle of every marked column, by criterion."""
    place = {p: i for i, column in enumerate(columns) for p in range(column.bin.begin, column.bin.end)}
    return [
        {"criterion": criterion, "x": (columns[index].begin + columns[index].end) / 2}
        for criterion, marked in example.marked.items()
        for index in sorted({place[position] for _, position in marked if position in place})
    ]


def column_names(data: str, axes: Axes) -> alt.Chart:
    """Name every column by its token, upright under the strip; rows are those of `name_rows`."""
    return (
        alt.Chart(named(data))
        .mark_text(style="soft", angle=270, align="right", baseline="middle", fontSize=11, limit=NAME, aria=False)
        .encode(x=_along("x:Q", axes), y=alt.value(axes.height + GAP + STRIP + 5), text="name:N")
    )


#: Length of a name under a column, in pixels.
NAME = 96


def _along(field: str, axes: Axes) -> alt.X:
    copy: alt.X = axes.x.copy()
    copy["shorthand"] = field
    return copy
