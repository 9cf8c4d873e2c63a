"""The sink map: every token at every layer, by how large it is or how much attention it receives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import altair as alt
import numpy as np

from omnisink.plotting.marks import marked_tokens
from omnisink.plotting.palette import MODALITIES
from omnisink.report.charts.sink_labels import label_rows, labels
from omnisink.report.charts.sink_panel import (
    GAP,
    NAME,
    OUTLINED,
    QUANTITIES,
    SHOWN,
    STRIP,
    Axes,
    Drawn,
    cell_rows,
    cells,
    column_names,
    outline_rows,
    outlines,
    pointer_rows,
    pointers,
    strip,
    strip_rows,
)
from omnisink.report.charts.sink_zoom import NAMED, name_rows, shown_sinks, zoom_panel, zoomed
from omnisink.report.cleaning import shown_token
from omnisink.report.example import Example
from omnisink.report.figure import Column, Figure, Row
from omnisink.results.wording import number, spaced

_NONE = "none"
#: Pixels of the narrowest drawing.
_NARROWEST = 340
#: Sinks that the text names, at most.
_SAID = 8
_TITLE = f"{SHOWN} === 'magnitude' ? 'Largest |h| of each token' : 'Attention that each token receives'"
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
    """Draw tokens along and layers upward; colour is the size, a strip below the modality, an outline a marked sink.

    A second panel shows the marked columns with their neighbours. Prompts of few tokens are named in the map instead.

    Parameters
    ----------
    example : Example
        With at least one token and one layer.

    Returns
    -------
    Figure
        Named ``sink-map``. Its table begins with the largest cells.
    """
    columns = [Drawn(b, b.begin, b.end) for b in example.bins()]
    close = [] if len(example.tokens) <= NAMED else zoomed(example)
    height = min(26, max(6, 420 // example.layers)) * example.layers
    # A phone shows the whole map; only names of many columns need more room than it has.
    narrowest = min(640, max(_NARROWEST, 58 + 14 * max(len(close), len(columns) if len(columns) <= NAMED else 0)))
    panels = [_map(example, columns, height)]
    if close:
        panels.append(zoom_panel(example, close, _used(example)))
    gathered = max(c.bin.end - c.bin.begin for c in columns)
    return Figure(
        name="sink-map",
        title="Every token at every layer",
        caption=(
            "Each column is a token of the prompt and each row a layer, the first at the bottom. Colour is the largest"
            " activation |h| of the token, on a logarithmic scale; the strip under the cells says what the token is."
            " Outlined cells are marked as sinks."
        )
        + (" The lower panel shows the marked columns and their neighbours." if close else ""),
        alternative=_in_words(example),
        chart=alt.vconcat(*panels, spacing=18)
        .resolve_scale(fill="shared", color="shared", x="independent", y="independent")
        .add_params(*_controls(example)),
        data={
            "tokens": cell_rows(example, columns),
            "modalities": strip_rows(columns),
            "outlines": outline_rows(example, columns),
            "pointers": pointer_rows(example, columns),
            "labels": label_rows(example, columns, height, narrowest),
            "names": name_rows(example, columns) if len(columns) <= NAMED else [],
            "zoomed": cell_rows(example, close),
            "zoomed-modalities": strip_rows(close),
            "zoomed-outlines": outline_rows(example, close),
            "zoomed-names": name_rows(example, close),
            "frames": example.frames,
        },
        columns=_COLUMNS,
        rows=_Cells(example),
        narrowest=narrowest,
        beside=58,
        many_marks=True,
        note=" ".join(_notes(example, gathered, bool(close))),
    )


def _map(example: Example, columns: Sequence[Drawn], height: int) -> alt.LayerChart:
    width, named = columns[-1].end, len(columns) <= NAMED
    axis = alt.Axis(
        offset=STRIP + 2 * GAP,
        format="~s" if width > 9_999 else "d",
        tickMinStep=1,
        labels=not named,
        ticks=not named,
        domain=not named,
        titlePadding=NAME + 8 if named else 8,
    )
    axes = Axes.of(example.layers, width, axis, height, "Token" if named else "Position in the prompt (tokens)")
    layers = [
        cells("tokens", axes, example),
        strip("modalities", axes, _used(example)),
        outlines("outlines", axes),
        pointers("pointers", axes),
        *labels("labels", axes),
    ]
    if named:
        layers.append(column_names("names", axes))
    return alt.LayerChart(layer=layers, title=alt.TitleParams(text=alt.ExprRef(_TITLE), offset=16), height=height)


def _controls(example: Example) -> list[alt.Parameter]:
    criteria = list(example.marked)
    return [
        alt.param(
            name=SHOWN,
            value="magnitude",
            bind=alt.binding_radio(options=list(QUANTITIES), labels=list(QUANTITIES.values()), name="Colour shows "),
        ),
        alt.param(
            name=OUTLINED,
            value=next((c for c in criteria if example.marked[c]), criteria[0] if criteria else _NONE),
            bind=alt.binding_select(
                options=[*criteria, _NONE], labels=[*map(spaced, criteria), _NONE], name="Outline sinks by "
            ),
        ),
    ]


def _used(example: Example) -> list[str]:
    there = {token["modality"] for token in example.tokens}
    return [m for m in MODALITIES if m in there]


def _notes(example: Example, gathered: int, close: bool) -> list[str]:
    said = []
    if gathered > 1:
        said.append(
            f"{len(example.tokens):,} tokens are too many to draw one by one: each column gathers {gathered}"
            " neighbours and shows the largest number among them. The CSV file has every token."
        )
    marked, shown = {p for held in example.marked.values() for _, p in held}, shown_sinks(example)
    if close and len(marked) > len(shown):
        said.append(
            f"The lower panel shows {len(shown)} of the {len(marked):,} marked tokens, those with the largest |h|"
            " first."
        )
    return said


def _in_words(example: Example) -> str:
    sentences = [f"{len(example.tokens):,} tokens at {example.layers} layers."]
    for values, what in ((example.magnitude, "The largest |h|"), (example.received, "The most attention received")):
        if np.isfinite(values).any():
            layer, position = np.unravel_index(np.nanargmax(values), values.shape)
            sentences.append(
                f"{what} is {number(float(values[layer, position]))}, at layer {layer}, token"
                f" {example.name(int(position))}."
            )
    for criterion, held in example.marked.items():
        found = marked_tokens(held)
        if not found:
            sentences.append(f"{spaced(criterion).capitalize()} marks no token.")
            continue
        count = len({position for _, position in held})
        where = "; ".join(one.text for one in found[:_SAID]) + ("; and others" if len(found) > _SAID else "")
        sentences.append(f"{spaced(criterion).capitalize()} marks {count:,} token{'s' if count > 1 else ''}: {where}.")
    return " ".join(sentences)


class _Cells(Sequence[Row]):
    """The cells of the map as rows, the largest |h| first, made when they are asked for: there may be a million."""

    def __init__(self, example: Example) -> None:
        self._example = example
        sizes = np.nan_to_num(example.magnitude, nan=-1.0).ravel()
        self._order = np.argsort(-sizes, kind="stable")
        self._marked: dict[tuple[int, int], list[str]] = {}
        for criterion, held in example.marked.items():
            for cell in held:
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
