"""The lower panel of the sink map: only the marked columns and their neighbours, each wide enough to see."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np

from omnisink.plotting.marks import grouped
from omnisink.report.charts.sink_panel import Axes, Drawn, cells, column_names, outlines, strip
from omnisink.report.cleaning import shown_token
from omnisink.report.example import Example
from omnisink.report.figure import Row

#: Prompts with no more tokens than this are named and seen in the map itself.
NAMED = 40
#: Marked tokens that are shown at most, columns that are aimed at, and neighbours to either side at most.
_MARKED, _COLUMNS, _BESIDE = 12, 24, 8
#: Width of the gap between neighbours that are far apart in the prompt, in columns.
_APART = 0.5


def zoomed(example: Example) -> list[Drawn]:
    """Return the columns to show: a token each, from left to right, with gaps where the prompt is left out."""
    chosen = shown_sinks(example)
    if not chosen:
        return []
    beside = max(1, min(_BESIDE, (_COLUMNS // len(chosen) - 1) // 2))
    last = len(example.tokens) - 1
    kept = sorted({p for at in chosen for p in range(max(0, at - beside), min(last, at + beside) + 1)})
    return place([list(range(first, end + 1)) for first, end in grouped(kept)], example)


def shown_sinks(example: Example) -> list[int]:
    """Return the marked tokens that are shown: the largest of the first criterion, then those of the others."""
    sizes = np.nan_to_num(example.magnitude, nan=0.0).max(axis=0, initial=0.0)
    order: dict[int, None] = {}
    for marked in example.marked.values():
        order |= dict.fromkeys(sorted({p for _, p in marked}, key=lambda p: (-sizes[p], p)))
    return list(order)[:_MARKED]


def place(groups: Sequence[Sequence[int]], example: Example) -> list[Drawn]:
    """Put tokens side by side, groups apart."""
    drawn: list[Drawn] = []
    x = 0.0
    for group in groups:
        for position in group:
            drawn.append(Drawn(example.column(position), x, x + 1))
            x += 1
        x += _APART
    return drawn


def name_rows(example: Example, columns: Sequence[Drawn]) -> list[Row]:
    """Return position and text of every column, for under it."""
    return [
        {
            "x": (column.begin + column.end) / 2,
            "name": f"{column.bin.begin} {shown_token(str(example.tokens[column.bin.begin].get('text', '')), 18)}",
        }
        for column in columns
    ]


def zoom_panel(example: Example, columns: Sequence[Drawn], used: Sequence[str]) -> alt.LayerChart:
    """Draw the columns; needs the data whose names begin with ``zoomed``."""
    height = min(16, max(4, 240 // example.layers)) * example.layers
    axes = Axes.of(example.layers, columns[-1].end, None, height)
    return alt.LayerChart(
        layer=[
            cells("zoomed", axes, example),
            strip("zoomed-modalities", axes, used),
            column_names("zoomed-names", axes),
            outlines("zoomed-outlines", axes),
        ],
        title="Marked tokens and their neighbours",
        height=height,
    )
