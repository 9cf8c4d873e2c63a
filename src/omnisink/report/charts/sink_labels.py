"""What is written into the sink map: which tokens are sinks, and at which layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import altair as alt

from omnisink.plotting.marks import MarkedTokens, grouped, layers_in_words, marked_tokens
from omnisink.report.charts.sink_panel import OUTLINED, Axes, Drawn
from omnisink.report.example import Example
from omnisink.report.figure import Row, named

#: Sinks that are named in the map; where there are more, they are counted.
_NAMED = 4
#: Width of a character and height of a line, in pixels.
_CHARACTER, _LINE = 6.6, 17


def labels(data: str, axes: Axes) -> list[alt.Chart]:
    """Draw the labels of the chosen criterion, whose rows are those of `label_rows`."""
    x = axes.x.copy()
    x["shorthand"] = "x:Q"
    made = []
    sides: tuple[tuple[Literal["left", "right"], int], ...] = (("left", 6), ("right", -6))
    for align, dx in sides:
        base = (
            alt.Chart(named(data))
            .transform_filter(f"datum.criterion === {OUTLINED}")
            .transform_filter(f"datum.align === '{align}'")
        )
        for style in ("halo", "text"):
            mark = base.mark_text(style=style, align=align, dx=dx, baseline="middle", fontWeight=600, aria=False)
            made.append(mark.encode(x=x, y=alt.Y("y:Q"), text="text:N", tooltip=alt.value(None)))
    return made


def label_rows(example: Example, columns: Sequence[Drawn], height: int, narrowest: int) -> list[Row]:
    """Return a label for each sink beside its column, or one that counts them where there are too many.

    Parameters
    ----------
    example : Example
        What is marked.
    columns : sequence of Drawn
        All columns of the map, from its left edge on.
    height : int
        Height of the map in pixels.
    narrowest : int
        Its least width, at which no label may cover another.

    Returns
    -------
    list of mappings
        With ``criterion``, ``text``, ``align``, and a place ``x``, ``y``.
    """
    width = columns[-1].end
    rows: list[Row] = []
    for criterion, cells in example.marked.items():
        found = marked_tokens(cells)
        if not found or len(found) > _NAMED:
            rows.append({"criterion": criterion, "text": _counted(cells, found), "align": "left", "x": 0,
                         "y": example.layers - 0.5 - _LINE * example.layers / height})  # fmt: skip
            continue
        taken: list[tuple[float, float, float]] = []
        for one in found:
            begin, end = (next(c for c in columns if c.bin.begin <= p < c.bin.end) for p in (one.first, one.last))
            at_left = begin.begin + end.end < width
            x, room = end.end if at_left else begin.begin, _CHARACTER * len(one.text) / narrowest * width
            left, right = (x, x + room) if at_left else (x - room, x)
            first, last = one.layers[-1]
            y = _free((first + last) / 2, left, right, taken, _LINE * example.layers / height, example.layers)
            taken.append((left, right, y))
            rows.append({"criterion": criterion, "text": one.text, "align": "left" if at_left else "right",
                         "x": x, "y": y})  # fmt: skip
    return rows


def _counted(cells: Sequence[tuple[int, int]], found: Sequence[MarkedTokens]) -> str:
    if not found:
        return "No token is marked."
    layers = layers_in_words(grouped(sorted({layer for layer, _ in cells})))
    return f"{len({position for _, position in cells}):,} tokens are marked, at {layers}"


def _free(
    wanted: float, left: float, right: float, taken: Sequence[tuple[float, float, float]], line: float, layers: int
) -> float:
    """Return the layer nearest to the one that is wanted at which a label covers none of those before it."""
    steps = [sign * n * line for n in range(2 * len(taken) + 2) for sign in (1, -1)]
    for step in steps:
        y = wanted + step
        crossed = any(left < b and a < right and abs(y - other) < line for a, b, other in taken)
        if -0.5 + line / 2 <= y <= layers - 0.5 - line / 2 and not crossed:
            return y
    return wanted
