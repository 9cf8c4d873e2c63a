"""Charts of the sink's key and value, and of what its value adds to every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from omnisink.report.charts.lines import layer_color, layer_lines, line_rows, log_axis, value_axis, wide_to_long
from omnisink.report.charts.pruning import pruning
from omnisink.report.charts.zero_k import zero_k
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import at_layer, bounded, extremes, present

_LAYER = Column("layer", "layer", "d")


def values(section: Mapping[str, Any]) -> list[Figure]:
    """Draw what the section has.

    Parameters
    ----------
    section : mapping
        ``values`` of the study's results.

    Returns
    -------
    list of Figure
        One or two for each part that has rows.
    """
    figures: list[Figure] = []
    if section.get("geometry"):
        figures += [_norms(section["geometry"]), _cosines(section["geometry"])]
    if section.get("key_channels"):
        figures.append(_key_channels(section["key_channels"]))
    if section.get("zero_k"):
        figures.append(zero_k(section["zero_k"]))
    if section.get("decomposition"):
        figures += [_share(section["decomposition"]), _parallel(section["decomposition"])]
    if section.get("distance"):
        figures.append(_distance(section["distance"]))
    if section.get("pruning"):
        figures.append(pruning(section["pruning"]))
    return figures


def _series(
    name: str,
    title: str,
    caption: str,
    rows: Sequence[Row],
    y: alt.Y,
    parts: Mapping[str, str],
    said: str = "The {}",
    form: str = ".3f",
) -> Figure:
    """Draw some fields of the rows as lines over the layers; `said` makes a subject of a line's label."""
    long = line_rows(wide_to_long(rows, parts), form)
    return Figure(
        name=name,
        title=title,
        caption=caption,
        alternative=" ".join(extremes(rows, key, form, at_layer, said.format(label)) for key, label in parts.items()),
        chart=layer_lines(name, y, list(parts.values()), long),
        data={name: long},
        columns=(_LAYER, *(Column(key, label, form) for key, label in parts.items())),
        rows=rows,
    )


def _norms(rows: Sequence[Row]) -> Figure:
    parts = {
        "sink_key_norm": "key of the sink",
        "other_key_norm": "key of other tokens",
        "sink_value_norm": "value of the sink",
        "other_value_norm": "value of other tokens",
    }
    # A logarithmic axis has no place for zero.
    drawn = [{key: value for key, value in row.items() if key == "layer" or (value or 0) > 0} for row in rows]
    return _series(
        "norms",
        "How long keys and values are",
        "Mean length of keys and values, of the sink and of all other tokens, on a logarithmic scale.",
        drawn,
        log_axis("Length (L2 norm)", rows, list(parts)),
        parts,
        "The length of the {}",
        ".3g",
    )


def _cosines(rows: Sequence[Row]) -> Figure:
    return _series(
        "key-cosines",
        "Do queries point at the sink's key?",
        "Mean cosine of queries with the key of the sink, and with the keys of other tokens.",
        rows,
        value_axis("Cosine (−1 to 1)"),
        {"query_cosine": "with the sink's key", "other_cosine": "with other keys"},
        "The cosine {}",
    )


def _key_channels(rows: Sequence[Row]) -> Figure:
    counts = sorted({row["n"] for row in present(rows, "n") if row["n"] > 0})
    x = (
        alt.X("n:Q")
        .title("Largest channels counted")
        .scale(type="log", base=2, domain=[counts[0], counts[-1]] if len(counts) > 1 else [1, 2], nice=False)
        .axis(values=counts, format="d")
    )
    y = alt.Y("share:Q").title("Share of the squared length (%)").scale(domain=[0, 1]).axis(format=".0~%", tickCount=5)
    base = alt.Chart(named("key-channels")).encode(x=x, y=y)
    color = layer_color(rows)
    lines = base.mark_line(strokeWidth=1.5, opacity=0.8, aria=False).encode(color=color, detail="layer:N")
    # Hollow, because the legend of lines and filled points would not be a gradient.
    points = base.mark_point(filled=False, size=12, strokeWidth=2.5).encode(
        color=color,
        tooltip=[
            alt.Tooltip("layer:Q", title="layer", format="d"),
            alt.Tooltip("n:Q", title="channels", format="d"),
            alt.Tooltip("share:Q", title="share", format=".1%"),
        ],
    )
    return Figure(
        name="key-channels",
        title="How few channels hold the sink's key",
        caption="Share of the squared length of the sink's key that its largest channels hold; a line is a layer.",
        alternative=" ".join(
            extremes([row for row in rows if row.get("n") == n], "share", ".0%", at_layer, f"The share of the top {n}")
            for n in counts
        ),
        chart=alt.LayerChart(layer=[lines, points], height=260),
        data={"key-channels": [row for row in present(rows, "share") if (row.get("n") or 0) > 0]},
        columns=(_LAYER, Column("n", "channels", "d"), Column("share", "share", ".1%")),
        rows=rows,
    )


def _share(rows: Sequence[Row]) -> Figure:
    label = "the sink's part"
    drawn = line_rows(
        (
            {"series": label, "value": row.get("share")} | {f: row.get(f) for f in ("layer", "low", "high")}
            for row in rows
        ),
        ".1%",
    )
    return Figure(
        name="decomposition",
        title="How much of a head's output is the sink's value",
        caption="Share of the head output that comes from the sink's value, mean over heads"
        + (", with its 95% interval." if bounded(rows) else "."),
        alternative=extremes(rows, "share", ".1%", at_layer, "The share of the sink"),
        chart=layer_lines("decomposition", value_axis("Share of the head output (%)", ".2~%"), [label], drawn),
        data={"decomposition": drawn},
        columns=(
            _LAYER,
            Column("share", "share of the sink", ".1%", ("low", "high")),
            Column("norm_ratio", "ratio of lengths", ".3f"),
        ),
        rows=rows,
    )


def _parallel(rows: Sequence[Row]) -> Figure:
    return _series(
        "parallel",
        "Are the head outputs of different tokens parallel?",
        "Mean cosine between the head outputs of two tokens: of the whole, of the sink's part, and of the rest.",
        rows,
        value_axis("Pairwise cosine (−1 to 1)"),
        {
            "parallel_whole": "the whole head output",
            "parallel_sink": "the sink's part",
            "parallel_rest": "the rest",
        },
        "The cosine of {}",
    )


def _distance(rows: Sequence[Row]) -> Figure:
    return _series(
        "distance",
        "The residual stream with and without the sink's value",
        "How alike the two are, layer by layer; 1 means the same.",
        rows,
        value_axis("Likeness (0 to 1)"),
        {"cosine": "mean cosine", "cka": "linear CKA"},
    )
