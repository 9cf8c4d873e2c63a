"""A quantity by layer, one line for each of a few series: the chart that most of the report is made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt

from omnisink.report.figure import Row, named
from omnisink.report.words import bounded, present
from omnisink.results.wording import interval

#: One for each line, so that lines differ without colour.
_DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3]]
#: Sizes of the points, the first drawn largest, so that it shows around the others where lines lie on each other.
_SIZES = [52, 40, 40, 40, 40]
#: The same where lines have the same values, and the widths of those lines: each shows beside the next one on it.
_NESTED, _WIDTHS = [190, 80, 34, 16, 8], [6, 2.5, 1.4, 1, 1]


@dataclass(frozen=True)
class Choice:
    """A control above the chart that shows the rows with one value of a field.

    Parameters
    ----------
    field : str
        The field; never a name that comes from data, because it is part of an expression.
    label : str
        Shown before the control.
    options : sequence
        Its values; they may be any text. The first is chosen at the start.
    """

    field: str
    label: str
    options: Sequence[str | int]

    @property
    def parameter(self) -> alt.Parameter:
        """The control."""
        bind = alt.binding_select(options=list(self.options), name=f"{self.label} ")
        return alt.param(name=f"chosen_{self.field}", value=self.options[0], bind=bind)

    @property
    def test(self) -> str:
        """The Vega expression that keeps the chosen rows."""
        return f"datum.{self.field} === chosen_{self.field}"


def distinct(rows: Sequence[Row], field: str) -> list[str]:
    """Return the values of a field in the order in which they first appear."""
    return list(dict.fromkeys(row[field] for row in rows if row.get(field) is not None))


def wide_to_long(rows: Sequence[Row], series: Mapping[str, str], extra: Sequence[str] = ()) -> list[Row]:
    """Return a row of `layer`, `series` and `value` for every field in `series`, which maps fields to labels.

    `extra` names fields that are copied.
    """
    return [
        {"layer": row.get("layer"), "series": label, "value": row.get(field)} | {k: row.get(k) for k in extra}
        for row in rows
        for field, label in series.items()
    ]


def line_rows(rows: Iterable[Row], form: str, along: str = "layer") -> list[Row]:
    """Return the rows that a line can be drawn from, each with what its tooltip says.

    Parameters
    ----------
    rows : iterable of mappings
        With `series`, `value`, the field `along` and, for a band, `low` and `high`. A row without a value says that
        there is none at this place.
    form : str
        Format of the numbers, see `words.number`.
    along : str
        The field of the horizontal axis.

    Returns
    -------
    list of mappings
        Those with a value and a place along the axis. An interval that is not whole is as narrow as nothing. Rows of a
        line that may be joined share a ``run``; ``lone`` rows have nobody to be joined with.
    """
    placed = [row for row in rows if row.get(along) is not None]
    runs = _runs(placed, along)
    counts = Counter(runs.values())
    return [
        {**row, "low": row["value"], "high": row["value"], "run": runs[id(row)], "lone": counts[runs[id(row)]] == 1}
        | ({end: row[end] for end in ("low", "high")} if bounded([row]) else {})
        | {"text": interval(row["value"], row.get("low"), row.get("high"), form)}
        for row in present(placed, "value")
    ]


def _line(row: Row) -> tuple[str, ...]:
    """Return what tells lines apart: their name, and whatever else is in words, of which a control shows one."""
    return tuple(value for key, value in row.items() if isinstance(value, str) and key != "text")


def _runs(rows: Sequence[Row], along: str) -> dict[int, int]:
    """Return the number of the stretch in which each row is joined, by its identity; over layers a line can break."""
    places = sorted({row[along] for row in rows})
    step = min((b - a for a, b in pairwise(places)), default=1) if along == "layer" else math.inf
    lines: dict[tuple[str, ...], list[Row]] = {}
    for row in present(rows, "value"):
        lines.setdefault(_line(row), []).append(row)
    runs: dict[int, int] = {}
    run = -1
    for line in lines.values():
        before = None
        for row in sorted(line, key=lambda r: r[along]):
            run += before is None or row[along] - before > step
            runs[id(row)], before = run, row[along]
    return runs


def _coincide(rows: Sequence[Row], along: str) -> bool:
    """Say whether lines have the same value at two places at least, so that one covers the other there."""
    shared: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        others = tuple(name for name in _line(row) if name != row["series"])
        shared[others, row[along], float(f"{row['value']:.3g}")] += 1
    return len({(others, place) for (others, place, _), count in shared.items() if count > 1}) > 1


def layer_lines(
    data: str, y: alt.Y, series: Sequence[str], rows: Sequence[Row], choice: Choice | None = None
) -> alt.LayerChart:
    """Draw lines over the layers; arguments as for `draw_lines`."""
    tooltip = alt.Tooltip("layer:Q", title="layer", format="d")
    return draw_lines(data, layer_axis(rows), y, series, rows, tooltip, choice)


def draw_lines(
    data: str,
    x: alt.X,
    y: alt.Y,
    series: Sequence[str],
    rows: Sequence[Row],
    tooltip: alt.Tooltip,
    choice: Choice | None = None,
) -> alt.LayerChart:
    """Draw lines along any axis, and bands where there are intervals.

    Parameters
    ----------
    data : str
        Name of the data.
    x : alt.X
        The axis along which the lines run, with its title and unit.
    y : alt.Y
        The axis of the values, with its title and unit; see `value_axis`.
    series : sequence of str
        The lines, in the order of their colours.
    rows : sequence of mappings
        The data, made by `line_rows`.
    tooltip : alt.Tooltip
        What a point says of its place along the axis.
    choice : Choice, optional
        A control that shows part of the rows; left out where there is nothing to choose.

    Returns
    -------
    alt.LayerChart
        Lines with points, distinguished by colour, dash and shape. Where lines lie on each other, the one below is
        wider and its points larger, so that both are seen.
    """
    choice = choice if choice is not None and len(choice.options) > 1 else None
    base = alt.Chart(named(data))
    if choice is not None:
        base = base.transform_filter(choice.test)
    if not rows:
        y = y.scale(domain=[0, 1])
    # Nothing is named that is drawn nowhere.
    shown = [name for name in series if any(row["series"] == name for row in rows)]
    legend = alt.Legend(values=shown) if len(shown) > 1 else None
    order = alt.Scale(domain=list(series))
    # The points make the legend. Bands and lines have channels of their own without one, and a domain with one value
    # more: Vega-Lite takes scales with the same domain for one legend, and would hide it with theirs.
    longer = [*series, ""]
    fill = alt.Fill("series:N", scale=alt.Scale(domain=longer), legend=None)
    stroke = alt.Stroke("series:N", scale=alt.Scale(domain=longer), legend=None)
    dash = alt.StrokeDash("series:N", scale=alt.Scale(domain=longer, range=_DASHES), legend=None)
    nested = _coincide(rows, x["shorthand"].partition(":")[0])

    def stepped(values: Sequence[float]) -> alt.Scale:
        """Return a scale that gives each line its own; a scale without a type would spread them evenly."""
        return alt.Scale(
            type="ordinal", domain=longer, range=[values[min(i, len(values) - 1)] for i in range(len(longer))]
        )

    sizes = stepped(_NESTED if nested else _SIZES)
    width = alt.Size("series:O", sort=longer, scale=stepped(_WIDTHS), legend=None)
    layers: list[alt.Chart] = []
    if any(row["low"] < row["high"] for row in rows):
        band = {"x": x, "y": alt.Y("low:Q").title(y["title"]), "y2": "high:Q"}
        layers.append(base.mark_area(opacity=0.16, aria=False).encode(**band, fill=fill, detail="run:O"))
        if any(row["lone"] and row["low"] < row["high"] for row in rows):
            # The band of a single layer has no width.
            alone = base.transform_filter("datum.lone").mark_rule(opacity=0.5, strokeWidth=2, aria=False)
            layers.append(alone.encode(**band, stroke=stroke))
    line = base.mark_line(aria=False).encode(x=x, y=y, stroke=stroke, strokeDash=dash, detail="run:O")
    layers.append(line.encode(size=width) if nested else line)
    points = base.mark_point().encode(
        x=x,
        y=y,
        color=alt.Color("series:N", title=None, scale=order, legend=legend),
        shape=alt.Shape("series:N", title=None, scale=order, legend=legend),
        size=alt.value(_SIZES[1]) if legend is None else alt.Size("series:O", sort=longer, scale=sizes, legend=None),
        tooltip=[
            alt.Tooltip("series:N", title="line"),
            tooltip,
            alt.Tooltip("text:N", title="value"),
        ],
    )
    # Widths of lines are not sizes of points.
    chart = alt.LayerChart(layer=[*layers, points], height=240).resolve_scale(size="independent")
    return chart if choice is None else chart.add_params(choice.parameter)


def layer_axis(rows: Sequence[Row], field: str = "layer:Q") -> alt.X:
    """Return the axis of the layers of the rows: whole numbers, close to the ends."""
    known = [row["layer"] for row in present(rows, "layer")] or [0]
    ends = [min(known), max(known)] if min(known) < max(known) else [known[0] - 1, known[0] + 1]
    return alt.X(field).title("Layer").scale(domain=ends, nice=False, padding=8).axis(tickMinStep=1, format="d")


def value_axis(title: str, form: str = "", field: str = "value") -> alt.Y:
    """Return an axis of values, from zero, with numbers in d3's format `form`.

    Without one they have as many decimals as their steps need, and never an exponent.
    """
    axis = alt.Axis(format=form, tickCount=6) if form else alt.Axis(tickCount=6)
    return alt.Y(f"{field}:Q").title(title).scale(zero=True).axis(axis)


def log_axis(title: str, rows: Sequence[Row], fields: Sequence[str], field: str = "value") -> alt.Y:
    """Return a logarithmic axis as long as the numbers, with lines at powers of ten, or at 1, 2 and 5 times those.

    `fields` are the fields of the rows whose positive numbers are drawn; `field` is the one of the chart's data.
    """
    known = [row[f] for f in fields for row in present(rows, f) if row[f] > 0] or [1.0]
    ends = [min(known), max(known)] if max(known) > 1.5 * min(known) else [min(known) / 2, max(known) * 2]
    low, high = (math.log10(end) for end in ends)
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [float(f"{step}e{power}") for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    scale = alt.Scale(type="log", domain=ends, nice=False, padding=10)
    return alt.Y(f"{field}:Q", scale=scale).title(title).axis(values=ticks, format=",~r")


def span(rows: Sequence[Row], *fields: str) -> list[float]:
    """Return the ends of an axis that holds zero and all numbers in some fields, whatever a filter leaves of them."""
    known = [row[field] for field in fields for row in present(rows, field)]
    low, high = min([0.0, *known]), max([0.0, *known])
    return [low, high] if low < high else [-1.0, 1.0]


def layer_color(rows: Sequence[Row]) -> alt.Color:
    """Return a colour for each layer; it keeps its meaning when layers are filtered out."""
    last = max((int(row["layer"]) for row in present(rows, "layer")), default=0)
    legend = alt.Legend(type="gradient", format="d", tickMinStep=1)
    return alt.Color("layer:Q").title("Layer").scale(domain=[0, max(1, last)]).legend(legend)


#: The one row that a line at zero is drawn from.
NOTHING: dict[str, Sequence[Row]] = {"nothing": [{}]}


def zero_line(axis: str = "y") -> alt.Chart:
    """Draw where nothing changes; needs the data `NOTHING`."""
    at = {axis: alt.YDatum(0) if axis == "y" else alt.XDatum(0)}
    return alt.Chart(named("nothing")).mark_rule(style="zero", aria=False).encode(**at)
