"""Chart of attention along the clip, under its frames and its sound."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from omnisink.plotting.palette import MODALITIES
from omnisink.report.charts.query_attention import (
    COLUMNS,
    QUERIES,
    bare,
    by_layer,
    in_words,
    layer_control,
    layer_with_most,
    modality_color,
    panel,
    silent,
    total,
    unfolded,
)
from omnisink.report.example import Example
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.results.wording import number

#: Pictures in the strip: as many as stand side by side on the narrowest drawing; and the box of one, in pixels.
_PICTURES, _WIDE, _HIGH = 8, 64, 54
#: Spans of time that a layer is drawn with, and points of the sound.
_SPANS, _SAMPLES = 600, 1_000


def timeline(example: Example) -> Figure:
    """Draw frames, sound and attention over one axis of time.

    Parameters
    ----------
    example : Example
        With at least one token that stands for a time.

    Returns
    -------
    Figure
        Named ``timeline``, with a control for the layer; it begins at the layer at which the sink's query looks most
        at the clip.
    """
    spans = _spans(example)
    start = layer_with_most(example, example.timed)
    ends = [min(s["begins"] for s in spans), max(s["ends"] for s in spans)]
    x = alt.X("begins:Q").title("Time (s)").scale(domain=ends, nice=False)
    panels: list[alt.Chart | alt.LayerChart] = []
    if example.frames:
        panels.append(_strip(bare(x)))
    if example.waveform is not None:
        panels.append(_sound(bare(x)))
    panels += [_attention("sink", bare(x), spans), _attention("last", x, spans)]
    rows = unfolded(spans, ("begins", "ends", "modality"))
    return Figure(
        name="timeline",
        title="Attention along the clip",
        caption=(
            "Above, the clip; below, how much attention goes to each stretch of it, in one layer. Height is attention"
            " per second, so that the area of a bar is the share of attention it gets."
        ),
        alternative=in_words(rows, start, lambda r: f"at {number(r['begins'], '.2f')} s ({r['modality']})"),
        chart=alt.vconcat(*panels, spacing=10).resolve_scale(color="shared").add_params(layer_control(example, start)),
        data={
            "spans": spans,
            "frames": example.frames,
            "strip": _strip_rows(example, ends),
            "sound": _sound_rows(example),
            "silent": silent(example),
        },
        columns=(
            Column("layer", "layer", "d"),
            Column("begins", "begins (s)", ".2f"),
            Column("ends", "ends (s)", ".2f"),
            Column("modality", "modality"),
            *COLUMNS,
        ),
        rows=rows,
        narrowest=640,
        many_marks=True,
    )


def _strip(x: alt.X) -> alt.Chart:
    middle = x.copy()
    middle["shorthand"] = "middle:Q"
    return (
        alt.Chart(named("strip"), title="Frames", height=_HIGH)
        .mark_image(width=_WIDE, height=_HIGH, aspect=True, aria=False)
        .encode(
            x=middle.axis(None),
            y=alt.value(_HIGH // 2),
            url="image:N",
            tooltip=[alt.Tooltip("time:Q", title="time (s)", format=".2f"), alt.Tooltip("image:N", title="image")],
        )
    )


def _sound(x: alt.X) -> alt.Chart:
    y = alt.Y("low:Q").title("Amplitude").scale(domain=[-1, 1]).axis(values=[-1, 0, 1])
    return (
        alt.Chart(named("sound"), title="Sound", height=54)
        .mark_area(style="soft", opacity=0.75, aria=False)
        .encode(x=x, y=y, y2="high:Q")
    )


def _attention(query: str, x: alt.X, spans: Sequence[Row]) -> alt.LayerChart:
    base = (
        alt.Chart(named("spans"))
        # Before the rows are multiplied by the layers.
        .transform_lookup("frame", from_=alt.LookupData(data=named("frames"), key="frame", fields=["image"]))
        .transform_flatten(["layer", "sink", "last"])
        .transform_filter("datum.layer === at")
        .transform_calculate(rate=f"datum.{query} / (datum.ends - datum.begins)", floor="0", image="datum.image || ''")
        .encode(x=x, x2="ends:Q", color=modality_color(spans))
    )
    bars = base.mark_rect(opacity=0.28, aria=False).encode(
        y=alt.Y("floor:Q").title("Attention / s").axis(format=".1~%", tickCount=3),
        y2="rate:Q",
        tooltip=[
            alt.Tooltip("kind:N", title="modality"),
            alt.Tooltip(f"{query}:Q", title=f"attention of {QUERIES[query][1]}", format=".3~p"),
            alt.Tooltip("rate:Q", title="per second", format=".3~p"),
            alt.Tooltip("layer:Q", title="layer", format="d"),
            alt.Tooltip("image:N", title="image"),
        ],
    )
    # Pale bars with strong upper edges: sound and picture are both seen where they stand over one another.
    edges = base.mark_rule(strokeWidth=2, aria=False).encode(y=alt.Y("rate:Q").title("Attention / s"))
    return panel(query, [bars, edges], 104)


def _spans(example: Example) -> list[Row]:
    """Add up the attention to tokens of one modality that begin together; gather what is too fine to draw."""
    tokens = {i: example.tokens[i] for i in example.timed}
    first = min(token["begins"] for token in tokens.values())
    last = max(token.get("ends") or token["begins"] for token in tokens.values())
    grain = max((last - first) / _SPANS, 1e-3)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, token in tokens.items():
        # A little more than nothing, so that a time on the edge of a span is not rounded into the one before.
        key = (MODALITIES.index(token["modality"]), int((token["begins"] - first) / grain + 1e-6))
        groups.setdefault(key, []).append(i)
    rows: list[Row] = []
    for (modality, _), members in sorted(groups.items()):
        begins = min(tokens[i]["begins"] for i in members)
        ends = max(begins + grain, *(tokens[i].get("ends") or begins for i in members))
        frame = next((tokens[i]["frame"] for i in members if tokens[i].get("frame") is not None), None)
        row = {
            "begins": float(f"{begins:.4f}"),
            "ends": float(f"{ends:.4f}"),
            "modality": MODALITIES[modality],
            "kind": f"{MODALITIES[modality]}, {begins:.2f} to {ends:.2f} s",
            "frame": None if frame is None else example.kept_frame.get(frame),
        }
        rows.append(row | by_layer(example, lambda values, columns=members: total(values[:, columns])))  # type: ignore[misc]
    return rows


def _strip_rows(example: Example, ends: Sequence[float]) -> list[Row]:
    """Return pictures in the middle of equal stretches of the film, so that none is cut or covers another."""
    film = [token for token in (example.tokens[i] for i in example.timed) if token.get("frame") is not None]
    begin = min((token["begins"] for token in film), default=ends[0])
    end = max((token.get("ends") or token["begins"] for token in film), default=ends[1])
    room = max(1, int(_PICTURES * (end - begin) / (ends[1] - ends[0]) + 1e-6))
    step = -(-len(example.frames) // room) or 1
    chosen = example.frames[::step]
    width = (end - begin) / max(1, len(chosen))
    return [
        {"middle": begin + (i + 0.5) * width, "time": frame["time"], "image": frame["image"]}
        for i, frame in enumerate(chosen)
    ]


def _sound_rows(example: Example) -> list[Row]:
    """Return the envelope of the sound, no finer than it can be drawn."""
    if example.waveform is None:
        return []
    seconds, low, high = (example.waveform[key] for key in ("seconds", "low", "high"))
    step = -(-len(seconds) // _SAMPLES) or 1
    return [
        {
            "begins": seconds[i],
            "low": min((v for v in low[i : i + step] if v is not None), default=None),
            "high": max((v for v in high[i : i + step] if v is not None), default=None),
        }
        for i in range(0, len(seconds), step)
    ]
