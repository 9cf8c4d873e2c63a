"""What each arm of an experiment changed, with its interval: loss above, accuracy below."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from omnisink.report.charts.lines import NOTHING, span, zero_line
from omnisink.report.charts.rows import Rows, fitted, folded
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import bounded, present, shown
from omnisink.results.wording import CHANGE, LEVEL, NATS, P_VALUE, POINTS, SINGLE, direction, number, p_value

LOSS = Column("loss_change", "loss change (nats)", CHANGE, ("loss_low", "loss_high"))
ACCURACY = Column("accuracy_change", "accuracy change (points)", POINTS, ("accuracy_low", "accuracy_high"))
_ITEMS = Column("items", "items", "d")
P = (Column("p", "p", P_VALUE), Column("p_holm", "p (Holm)", P_VALUE))
COLUMNS = (
    Column("arm", "condition", on_page=False),
    Column("label", "what was done"),
    _ITEMS,
    Column("seeds", "seeds", "d"),
    Column("loss", "loss (nats)", NATS),
    LOSS,
    Column("accuracy", "accuracy", ".1%"),
    ACCURACY,
    *P,
    Column("changed", "answers changed", ".4g"),
    Column("turned", "turned (degrees)", ".1f"),
)
#: Measure: title of its axis, and what its numbers are multiplied by.
PANELS = {
    "loss": ("Loss change (nats)", 1),
    "accuracy": ("Accuracy change (percentage points)", 100),
}


def intervals(
    name: str,
    title: str,
    arms: Sequence[Row],
    *,
    caption: str = "",
    extra: Sequence[Column] = (),
    in_order: bool = False,
    table_open: bool = False,
    undetected: str = "",
    first: Sequence[str] = (),
    against: str = "the baseline",
) -> Figure:
    """Draw the change of every arm with its interval and a line where nothing changes.

    Parameters
    ----------
    name, title : str
        Name and title of the figure.
    arms : sequence of mappings
        Arms as a study records them; at least one.
    caption : str
        Description of the rows, placed before the explanation of the marks.
    extra : sequence of Column
        Further numbers of the arms, for table and tooltip.
    in_order : bool
        Keep the order of the arms rather than sort by the change of the loss.
    table_open : bool
        Show the table from the start.
    undetected : str
        What the bars show of arms that have ``accuracy_undetected``: the smallest change of the accuracy that this
        sample would have found, a share. Empty where there are none.
    first : sequence of str
        Columns that stand right after the names, in this order; a narrow screen shows no others.
    against : str
        Name of what the rows are compared with.

    Returns
    -------
    Figure
        One panel for each measure that any arm has.
    """
    measures = measured(arms)
    key = f"{measures[0]}_change"
    ordered = list(arms) if in_order else sorted(arms, key=lambda a: (a.get(key) is None, a.get(key) or 0.0))
    known = {column.name: column for column in (*extra, *COLUMNS[2:])}
    columns = [*COLUMNS[:2], *(known.pop(column) for column in first), *known.values()]
    names = [_label(arm) for arm in ordered]
    drawn = [
        {"row": i, "folded": lines} | _drawn(arm, extra)
        for i, (arm, lines) in enumerate(zip(ordered, folded(names), strict=True))
    ]
    lines = has_intervals(arms)
    # p is that of the first measure: a change of the loss can be clear where that of the accuracy is not.
    of = "of the loss " if measured(arms) == [*PANELS] else ""
    marks = f"A point is the change against {against} on the same items" + (
        f", its line the 95% interval; it is filled where p {of}< {LEVEL:g} after Holm's correction."
        if lines
        else f". {SINGLE}"
        if any(arm.get(column.name) for arm in arms for column in (LOSS, ACCURACY))
        else "; nothing changes."
    )
    return Figure(
        name=name,
        title=title,
        caption=f"{caption} {marks} {undetected}".strip(),
        alternative=" ".join(f"{_label(arm)}: {changes_in_words(arm)}." for arm in ordered),
        data={name: drawn} | NOTHING,
        columns=given(columns, ordered),
        rows=ordered,
        table_open=table_open,
        beside=26,
        note=unmoved(arms),
        **fitted(
            names,
            lambda rows: alt.vconcat(
                *(_panel(name, m, drawn, extra, rows, m == measures[0]) for m in measures), spacing=14
            ),
        ),
    )


def has_intervals(arms: Sequence[Row]) -> bool:
    """Say whether any change has an interval; those of a single clip or text have none."""
    return any(bounded(arms, *column.ends) for column in (LOSS, ACCURACY))


def given(columns: Sequence[Column], arms: Sequence[Row]) -> list[Column]:
    """Return the columns that have numbers. Without an interval there is no test either, whatever stands for its p."""
    tested = has_intervals(arms)
    return [c for c in columns if (tested or c not in P) and any(arm.get(c.name) is not None for arm in arms)]


def measured(arms: Sequence[Row]) -> list[str]:
    """Return the measures to draw: passages have only a loss, and an accuracy that never changes is not drawn."""
    given = [measure for measure in PANELS if present(arms, f"{measure}_change")]
    return [m for m in given if m == "loss" or _moves(arms, m)] or given or ["loss"]


def unmoved(arms: Sequence[Row]) -> str:
    """Say so where accuracies were measured and none of them moves."""
    silent = present(arms, "accuracy_change") and "accuracy" not in measured(arms)
    return "The accuracy does not change in any of these, so only the loss is drawn." if silent else ""


def _moves(arms: Sequence[Row], measure: str) -> bool:
    return any(arm.get(f"{measure}_{part}") for arm in arms for part in ("change", "low", "high"))


def drawn_changes(arm: Row) -> dict[str, float | str]:
    """Return the changes that an arm has, in the units of their axes, under the names of the measures.

    An interval that is not whole is as narrow as nothing: a scale has no place for null. The texts are for tooltips.
    """
    row: dict[str, float | str] = {"loss_text": shown(arm, LOSS), "accuracy_text": shown(arm, ACCURACY)}
    for measure, (_, times) in PANELS.items():
        change, low, high = (arm.get(f"{measure}_{part}") for part in ("change", "low", "high"))
        if change is not None:
            if low is None or high is None:
                low = high = change
            row |= {measure: change * times, f"{measure}_low": low * times, f"{measure}_high": high * times}
            if (unseen := arm.get(f"{measure}_undetected")) is not None:
                row |= {f"{measure}_unseen_low": -unseen * times, f"{measure}_unseen_high": unseen * times}
    return row


def reach(rows: Sequence[Row], measure: str) -> list[float]:
    """Return the ends of the axis of a measure."""
    return span(rows, *(f"{measure}{end}" for end in ("", "_low", "_high", "_unseen_low", "_unseen_high")))


def has_lines(rows: Sequence[Row], measure: str) -> bool:
    """Say whether any interval is wider than nothing."""
    return any(row[f"{measure}_low"] < row[f"{measure}_high"] for row in present(rows, measure))


def change_tooltip() -> list[alt.Tooltip]:
    """Return the tooltip of the changes with their intervals."""
    return [alt.Tooltip(f"{c.name.split('_')[0]}_text:N", title=c.title) for c in (LOSS, ACCURACY)]


def _panel(
    data: str, measure: str, drawn: Sequence[Row], extra: Sequence[Column], rows: Rows, tested: bool
) -> alt.LayerChart:
    title, _ = PANELS[measure]
    base = alt.Chart(named(data)).transform_filter(f"isValid(datum.{measure})")
    scale = alt.Scale(domain=reach(drawn, measure), nice=False, padding=12)
    x = alt.X(f"{measure}:Q", scale=scale).title(title).axis(grid=True, tickCount=6)
    place = rows.place() | {
        "tooltip": [
            alt.Tooltip("label:N", title="condition"),
            *change_tooltip(),
            *(alt.Tooltip(f"{c.name}:N", title=c.title) for c in (*extra, *P, _ITEMS)),
        ]
    }
    line = base.mark_rule(style="strong", strokeWidth=2.5)
    point = base.mark_point(style="strong", filled=False, size=64, strokeWidth=2)
    inside = base.transform_filter("datum.clear").mark_point(style="strong", filled=True, size=64, aria=False)
    layers = [zero_line("x"), *rows.names(base)]
    if present(drawn, f"{measure}_unseen_low"):
        # Drawn first, so that all else lies on it.
        unseen = base.transform_filter(f"isValid(datum.{measure}_unseen_low)").mark_bar(style="unseen", height=10)
        layers.insert(
            0, unseen.encode(x=alt.X(f"{measure}_unseen_low:Q").title(title), x2=f"{measure}_unseen_high:Q", **place)
        )
    if has_lines(drawn, measure):
        layers.append(line.encode(x=alt.X(f"{measure}_low:Q").title(title), x2=f"{measure}_high:Q", **place))
    layers.append(point.encode(x=x, **place))
    if tested:
        layers.append(inside.encode(x=x, **place))
    return alt.LayerChart(layer=layers, height=rows.height)


def _drawn(arm: Row, extra: Sequence[Column]) -> dict[str, object]:
    """Return what the chart needs of an arm, the numbers of its tooltip ready to read."""
    texts = {c.name: number(arm.get(c.name), c.form) for c in (*extra, *P, _ITEMS)}
    clear = arm.get("p_holm") is not None and arm["p_holm"] < LEVEL
    return {"label": _label(arm), "clear": clear, **drawn_changes(arm), **texts}


def _label(arm: Row) -> str:
    return str(arm.get("label") or arm.get("arm") or "")


def changes_in_words(arm: Row) -> str:
    """Write the changes of a condition; where none has an interval, only which way they go."""
    if not has_intervals([arm]):
        ways = [f"{c.title.split()[0]} {direction(arm[c.name])}" for c in (LOSS, ACCURACY) if present([arm], c.name)]
        return ", ".join(ways) or "no numbers"
    parts = [f"{c.title.split()[0]} {shown(arm, c)}" for c in (LOSS, ACCURACY) if arm.get(c.name) is not None]
    if arm.get("p_holm") is not None:
        parts.append(f"p after Holm's correction {p_value(arm['p_holm'])}")
    return ", ".join(parts) or "no numbers"
