"""Where attention goes, by modality: a stacked area over the layers, with the part that lies on sinks apart."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np

from omnisink.plotting.palette import MODALITIES
from omnisink.report.charts.lines import layer_axis
from omnisink.report.charts.query_attention import total
from omnisink.report.example import Example
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import at_layer, extremes, present
from omnisink.results.wording import listed

#: What the band of the sinks is called; of the others, the modality.
SINKS = "sinks"
_COLUMNS = (
    Column("layer", "layer", "d"),
    Column("modality", "modality"),
    Column("tokens", "tokens"),
    Column("mass", "attention", ".1%", ("low", "high")),
)


def mean_mass(rows: Sequence[Row]) -> Figure:
    """Draw the attention of all tokens that are not sinks, mean over heads and items.

    Parameters
    ----------
    rows : sequence of mappings
        With ``layer``, ``modality``, whether of its tokens those are meant that are a ``sink`` at the layer or the
        others, and their ``mass``, 0 to 1.

    Returns
    -------
    Figure
        Named ``modality-mass``.
    """
    return _stacked(
        "modality-mass",
        "Where attention goes, by modality",
        "Attention of all tokens but the sinks, layer by layer: to tokens that are sinks at the layer, and to the"
        " others of each modality. Mean over heads and items.",
        rows,
    )


def last_token_mass(example: Example) -> Figure | None:
    """Draw the attention of the last token of the example's prompt; None where it was not recorded.

    Parameters
    ----------
    example : Example
        Its sinks are what the first criterion marks.

    Returns
    -------
    Figure or None
        Named ``last-token-mass``.
    """
    if np.isnan(example.last_query).all():
        return None
    ever = {position for _, position in next(iter(example.marked.values()), ())}
    rows: list[Row] = []
    for modality in _there([token["modality"] for token in example.tokens]):
        columns = [i for i, token in enumerate(example.tokens) if token["modality"] == modality]
        for sink in (True, False):
            chosen = [i for i in columns if (i in ever) is sink]
            if chosen:
                rows += [
                    {"layer": layer, "modality": modality, "sink": sink, "mass": float(mass)}
                    for layer, mass in enumerate(total(example.last_query[:, chosen]))
                    if not np.isnan(mass)
                ]
    return _stacked(
        "last-token-mass",
        "Where the last token of the prompt looks, by modality",
        "The answer is read off the last token of the prompt. Its attention, layer by layer: to tokens that are a sink"
        " at one layer at least, and to the others of each modality. Mean over heads.",
        rows,
    )


def _stacked(name: str, title: str, caption: str, rows: Sequence[Row]) -> Figure:
    known = [row for row in present(present(rows, "mass"), "layer") if row.get("modality")]
    bands = _bands(known)
    used = [band for band in (SINKS, *MODALITIES) if any(row["band"] == band and row["share"] > 0 for row in bands)]
    base = alt.Chart(named(name))
    y = alt.Y("low:Q", title="Attention (%)", scale=alt.Scale(domain=[0, 1], nice=False)).axis(
        format=".0%", values=[0, 0.25, 0.5, 0.75, 1]
    )
    # The theme has the colours of the modalities, and then that of sinks.
    fill = alt.Fill("band:O", title=None, scale=alt.Scale(domain=[*MODALITIES, SINKS])).legend(
        values=used, symbolType="square"
    )
    area = base.mark_area(aria=False, opacity=1).encode(x=layer_axis(bands), y=y, y2="high:Q", fill=fill)
    # An area is one mark from the first layer to the last: what is under the pointer is a rectangle of its own. Of a
    # single layer, whose area has no width, the rectangles are all there is to see.
    lone = len({row["layer"] for row in bands}) == 1
    cells = base.mark_rect(aria=False, clip=True, fillOpacity=1 if lone else 0).encode(
        x=layer_axis(bands, "left:Q"),
        x2="right:Q",
        y=y,
        y2="high:Q",
        fill=fill,
        tooltip=[
            alt.Tooltip("band:N", title="attention to"),
            alt.Tooltip("layer:Q", title="layer", format="d"),
            alt.Tooltip("share:Q", title="share", format=".1%"),
        ],
    )
    return Figure(
        name=name,
        title=title,
        caption=caption,
        alternative=_in_words(known, bands, used),
        chart=alt.LayerChart(layer=[area, cells], height=260),
        data={name: bands},
        columns=_COLUMNS,
        rows=[{**row, "tokens": SINKS if row.get("sink") else "others"} for row in known],
    )


def _bands(rows: Sequence[Row]) -> list[Row]:
    """Return the edges of every band at every layer: the sinks of all modalities below, then what is left of each."""
    layers = sorted({row["layer"] for row in rows})
    shares: dict[tuple[str, int], float] = {}
    for row in rows:
        modality = row["modality"] if row["modality"] in MODALITIES else "other"
        key = (SINKS if row.get("sink") else modality, row["layer"])
        shares[key] = shares.get(key, 0.0) + row["mass"]
    bands: list[Row] = []
    below = dict.fromkeys(layers, 0.0)
    for band in (SINKS, *MODALITIES):
        if not any(key[0] == band for key in shares):
            continue
        # An area needs a height at every layer, or it would run straight over one that has none.
        for layer in layers:
            share = shares.get((band, layer), 0.0)
            row = {"layer": layer, "band": band, "share": share, "left": layer - 0.5, "right": layer + 0.5}
            bands.append(row | {"low": below[layer], "high": below[layer] + share})
            below[layer] += share
    return bands


def _in_words(rows: Sequence[Row], bands: Sequence[Row], used: Sequence[str]) -> str:
    sinks = _there([row["modality"] for row in rows if row.get("sink") and row["mass"] > 0])
    said = [f"The sinks are {listed(sinks)} tokens."] if sinks else []
    others = "other " if SINKS in used else ""
    for band in used:
        what = "The attention to sinks" if band == SINKS else f"The attention to {others}{band} tokens"
        said.append(extremes([row for row in bands if row["band"] == band], "share", ".1%", at_layer, what))
    return " ".join(said) or "No numbers."


def _there(modalities: Sequence[object]) -> list[str]:
    return [modality for modality in MODALITIES if modality in modalities]
