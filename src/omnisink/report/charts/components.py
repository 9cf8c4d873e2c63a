"""Principal components of an example's values and residual streams: where its sink lies among its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from omnisink.plotting.palette import MODALITIES
from omnisink.report.charts.query_attention import modality_color
from omnisink.report.cleaning import shown_token
from omnisink.report.example import Example
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.results.wording import listed, number, percent

#: Tokens that a panel shows; more are a cloud all the same, and would make the page large.
_SHOWN = 1_500
#: What is drawn: name of the figure, its title, and what stands before the explanation of the marks.
_KINDS = {
    "values": (
        "value-components",
        "Where the sink's value lies",
        "The values of all tokens at a few layers, those of all key/value heads of a token in one vector.",
    ),
    "residual_streams": (
        "stream-components",
        "Where the sink's residual stream lies",
        "The residual streams of all tokens as they enter a few layers, each scaled to the same length, as the norm"
        " before attention scales it.",
    ),
}
_COLUMNS = (
    Column("layer", "layer", "d"),
    Column("position", "position", "d"),
    Column("token", "token"),
    Column("modality", "modality"),
    Column("sink", "sink"),
    Column("x", "first component", ",.4g"),
    Column("y", "second component", ",.4g"),
)


def components(given: Mapping[str, Any], example: Example) -> list[Figure]:
    """Draw the tokens of an example in the plane of the first two principal components, a panel for each layer.

    Parameters
    ----------
    given : mapping
        ``components`` of the example: the positions of its sinks, and the panels of each kind.
    example : Example
        Its tokens.

    Returns
    -------
    list of Figure
        ``value-components`` and ``stream-components``, as far as there are panels of them.
    """
    sinks = {int(position) for position in given.get("sinks") or []}
    return [
        _figure(kind, panels, sinks, example)
        for kind in _KINDS
        if (panels := [panel for panel in given.get(kind) or [] if _is_whole(panel, example)])
    ]


def _is_whole(panel: Mapping[str, Any], example: Example) -> bool:
    """Say whether a panel has two coordinates for every token, and what else it is described with."""
    lengths = {"x": len(example.tokens), "y": len(example.tokens), "explained": 2, "origin": 2}
    return isinstance(panel.get("layer"), int) and all(
        len(panel.get(name) or ()) == length and all(isinstance(v, int | float) for v in panel[name])
        for name, length in lengths.items()
    )


def _figure(kind: str, panels: Sequence[Mapping[str, Any]], sinks: set[int], example: Example) -> Figure:
    name, title, caption = _KINDS[kind]
    drawn = _drawn(panels, sinks, example)
    lost = len(example.tokens) - len(drawn)
    origins = [{f"x{i}": panel["origin"][0], f"y{i}": panel["origin"][1]} for i, panel in enumerate(panels)]
    return Figure(
        name=name,
        title=title,
        caption=f"{caption} A point is a token, in the plane in which they differ most; the diamond is the sink, and"
        " the dashed lines cross at the vector of zeros. The axes name their share of the variance.",
        alternative=" ".join(_in_words(panel, sinks) for panel in panels),
        chart=alt.concat(
            *(_panel(name, i, panel, drawn) for i, panel in enumerate(panels)), columns=len(panels), spacing=14
        ).resolve_scale(x="independent", y="independent", color="shared"),
        data={name: drawn, f"{name}-origins": [{k: v for one in origins for k, v in one.items()}]},
        columns=_COLUMNS,
        rows=_rows(panels, sinks, example),
        beside=58,
        panel=168,
        note=f"{number(lost)} of {number(len(example.tokens))} tokens are not drawn; the CSV file has all."
        if lost
        else "",
    )


def _drawn(panels: Sequence[Mapping[str, Any]], sinks: set[int], example: Example) -> list[Row]:
    """Return a row for each token that is drawn, with its coordinates in every panel."""
    step = -(-len(example.tokens) // _SHOWN)
    shown = [i for i in range(len(example.tokens)) if i % step == 0 or i in sinks]
    return [
        {
            "token": f"{shown_token(str(example.tokens[i].get('text', '')))} at {i}",
            "modality": example.tokens[i]["modality"],
            "sink": i in sinks,
        }
        | {f"{axis}{n}": panel[axis][i] for n, panel in enumerate(panels) for axis in ("x", "y")}
        for i in shown
    ]


def _rows(panels: Sequence[Mapping[str, Any]], sinks: set[int], example: Example) -> list[Row]:
    """Return a row for each token of each panel, those of the sinks first."""
    rows = [
        {
            "layer": panel["layer"],
            "position": i,
            "token": shown_token(str(token.get("text", ""))),
            "modality": token["modality"],
            "sink": i in sinks,
            "x": panel["x"][i],
            "y": panel["y"][i],
        }
        for panel in panels
        for i, token in enumerate(example.tokens)
    ]
    return sorted(rows, key=lambda row: not row["sink"])


def _panel(name: str, index: int, panel: Mapping[str, Any], drawn: Sequence[Row]) -> alt.LayerChart:
    axes = []
    for axis, words, share in zip((alt.X, alt.Y), ("First", "Second"), panel["explained"], strict=True):
        field = f"{axis.__name__.lower()}{index}:Q"
        title = f"{words} ({percent(share)})"
        axes.append(
            axis(field, scale=alt.Scale(zero=False, nice=False, padding=12), title=title).axis(grid=False, tickCount=4)
        )
    x, y = axes
    tokens = alt.Chart(named(name))
    tooltip = [
        alt.Tooltip("token:N", title="token"),
        alt.Tooltip("modality:N", title="modality"),
        alt.Tooltip("sink:N", title="sink"),
    ]
    color = modality_color(drawn)
    others = tokens.transform_filter("!datum.sink").mark_point(size=16, opacity=0.6)
    sinks = tokens.transform_filter("datum.sink").mark_point(shape="diamond", size=190, style="sink")
    zero = alt.Chart(named(f"{name}-origins")).mark_rule(style="zero", aria=False)
    # A channel of its own, because the legend would show the outline of the sink around every symbol. Its domain has
    # one value more, as in `draw_lines`.
    fill = alt.Fill("modality:O", scale=alt.Scale(domain=[*MODALITIES, ""]), legend=None)
    layers = [
        zero.encode(x=x),
        zero.encode(y=y),
        others.encode(x=x, y=y, color=color, tooltip=tooltip),
        sinks.encode(x=x, y=y, fill=fill, tooltip=tooltip),
    ]
    return alt.LayerChart(layer=layers, title=f"Layer {panel['layer']}", height=170)


def _in_words(panel: Mapping[str, Any], sinks: set[int]) -> str:
    """Say how much a panel shows, and where its sinks lie among the other tokens."""
    shares = listed([percent(share) for share in panel["explained"]])
    said = f"Layer {panel['layer']}: the first two components explain {shares} of the variance."
    if not sinks:
        return f"{said} There is no sink."
    ranked = sorted(range(len(panel["x"])), key=lambda i: _far(panel, i))
    nearest = ", ".join(f"the token at {i} is number {ranked.index(i) + 1}" for i in sorted(sinks))
    return f"{said} Of {number(len(ranked))} tokens in order of their distance from zero in this plane, {nearest}."


def _far(panel: Mapping[str, Any], i: int) -> float:
    """Return the squared distance of a token from the origin in the plane."""
    return float((panel["x"][i] - panel["origin"][0]) ** 2 + (panel["y"][i] - panel["origin"][1]) ** 2)
