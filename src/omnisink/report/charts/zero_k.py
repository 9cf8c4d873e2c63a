"""Zero-K: what is left of the attention to the sink, and what changes, without the largest channels of its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from omnisink.report.charts.intervals import (
    ACCURACY,
    COLUMNS,
    LOSS,
    PANELS,
    changes_in_words,
    drawn_changes,
    given,
    has_lines,
    measured,
    reach,
    unmoved,
)
from omnisink.report.charts.lines import NOTHING, zero_line
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import bounded, present, shown
from omnisink.results.wording import SINGLE

_COUNT = Column("n", "channels set to zero", "d")
_MASS = Column("mass", "attention to the sink", ".1%", ("mass_low", "mass_high"))
#: Measure: title of its axis. The changes are those of `PANELS`.
_TITLES = {"mass": "Attention to the sink (%)", **{name: title for name, (title, _) in PANELS.items()}}
_BEFORE = "The attention before any channel is set to zero is not in these results, so that curve begins at n = 1."


def zero_k(arms: Sequence[Row]) -> Figure:
    """Draw curves over the number n of channels that are set to zero, from n = 0, where nothing is changed.

    Parameters
    ----------
    arms : sequence of mappings
        Conditions with `n`, `mass` and `mass_before`, the attention that the sink gets with and without the change,
        and the changes of loss and accuracy; at least one.

    Returns
    -------
    Figure
        Named ``zero-k``: a curve for the attention, one for the loss, and for the accuracy where it changes.
    """
    rows = sorted(present(arms, "n"), key=lambda arm: int(arm["n"]))
    rows = [_nothing_zeroed(rows or arms), *rows]
    drawn = [_drawn(row) for row in rows]
    measures = [*(["mass"] if present(drawn, "mass") else []), *measured(arms)]
    lines = any(bounded(arms, *column.ends) for column in (_MASS, LOSS, ACCURACY))
    begins = rows[0]["mass"] is not None
    return Figure(
        name="zero-k",
        title="Without the largest channels of the sink's key",
        caption="The n largest channels of the sink's key are set to zero, for n = 1, 2, 4 up to all of them."
        " At n = 0 nothing is changed. Attention is what other tokens place on the sink; the loss changes against the"
        f" baseline on the same items. {'Bands are 95% intervals.' if lines else SINGLE}",
        alternative=" ".join(f"n = {row['n']}: {_in_words(row)}." for row in rows),
        chart=alt.concat(*(_panel(name, drawn) for name in measures), columns=len(measures), spacing=12),
        data={"zero-k": drawn} | NOTHING,
        columns=(_COUNT, _MASS, *given(COLUMNS, rows)),
        rows=rows,
        beside=98,
        panel=240,
        note=" ".join(filter(None, [unmoved(arms), "" if begins or "mass" not in measures else _BEFORE])),
    )


def _nothing_zeroed(arms: Sequence[Row]) -> dict[str, Any]:
    """Return the row of n = 0: the attention of the first run, and no change by definition."""
    row: dict[str, Any] = {"n": 0, "label": "nothing set to zero", "items": arms[0].get("items")}
    for end in ("", "_low", "_high"):
        row[f"mass{end}"] = next(iter(arm.get(f"mass_before{end}") for arm in arms), None)
    for column in (LOSS, ACCURACY):
        measure = column.name.removesuffix("_change")
        if first := present(arms, column.name):
            row |= dict.fromkeys((column.name, *(end for end in column.ends if bounded(arms, *column.ends))), 0.0)
            whole = first[0].get(measure)
            row[measure] = None if whole is None else whole - first[0][column.name]
    return row


def _drawn(row: Row) -> dict[str, Any]:
    out: dict[str, Any] = {"n": row["n"], "mass_text": shown(row, _MASS), **drawn_changes(row)}
    if row.get("mass") is not None:
        whole = bounded([row], *_MASS.ends)
        ends = {end: 100 * row[end if whole else "mass"] for end in _MASS.ends}
        out |= {"mass": 100 * row["mass"], **ends}
    return out


def _panel(measure: str, drawn: Sequence[Row]) -> alt.LayerChart:
    counts = [row["n"] for row in drawn]
    x = alt.X("n:Q", scale=alt.Scale(type="symlog", constant=1, domain=[0, max(1, *counts)], nice=False, padding=8))
    # From one to all channels n doubles; the axis is near to linear below, so that it can begin at zero.
    x = x.title("Channels set to zero (n)").axis(values=counts, format="d")
    y = alt.Y(f"{measure}:Q", scale=alt.Scale(domain=reach(drawn, measure), nice=True)).axis(
        grid=True, tickCount=5, minExtent=50
    )
    y = y.title(_TITLES[measure].replace("percentage ", ""))
    base = alt.Chart(named("zero-k")).transform_filter(f"isValid(datum.{measure})")
    layers = [zero_line()] if measure != "mass" else []
    if has_lines(drawn, measure):
        band = base.mark_area(style="strong", opacity=0.18, aria=False)
        layers.append(band.encode(x=x, y=alt.Y(f"{measure}_low:Q").title(y["title"]), y2=f"{measure}_high:Q"))
    layers.append(base.mark_line(style="strong", aria=False).encode(x=x, y=y))
    tooltip = [
        alt.Tooltip("n:Q", title="channels", format="d"),
        *(alt.Tooltip(f"{c.name.split('_')[0]}_text:N", title=c.title) for c in (_MASS, LOSS, ACCURACY)),
    ]
    layers.append(base.mark_point(style="strong", size=44).encode(x=x, y=y, tooltip=tooltip))
    return alt.LayerChart(layer=layers, height=210)


def _in_words(row: Mapping[str, Any]) -> str:
    mass = [f"attention to the sink {shown(row, _MASS)}"] if row.get("mass") is not None else []
    if row["n"] == 0:
        return ", ".join([*mass, "nothing is changed"])
    return ", ".join([*mass, changes_in_words(row)])
