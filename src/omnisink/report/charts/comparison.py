"""Charts of a comparison: differences, levels, wins and losses, breakdowns and cost of every method of every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

import altair as alt

from omnisink.evaluation.comparing.summary import changes_anything, in_reading_order
from omnisink.report.charts.dots import dots, once, with_lines
from omnisink.report.charts.intervals import intervals
from omnisink.report.charts.lines import NOTHING, zero_line
from omnisink.report.charts.rows import Rows, fitted
from omnisink.report.figure import Column, Figure, Row, named
from omnisink.report.words import bounded, present, shown
from omnisink.results.wording import P_VALUE, POINTS, counted, interval, number, spaced

#: Groups that a breakdown draws; its table has all.
MAX_DRAWN = 30
#: Questions won or lost up to which the axis has a tick for each.
_COUNTED = 10
_UNDETECTED = (
    "The bar under it is what could not be seen: were the true difference inside it, this sample would show it less"
    " often than four times in five."
)
NAME = Column("label", "method")
_COUNTS = tuple(Column(name, name, "d") for name in ("answered", "errors", "unparsed", "unscored", "retried"))
_ACCURACY = Column("accuracy", "accuracy", ".1%", ("low", "high"))
_QUESTIONS = (
    NAME,
    Column("outcome", "outcome"),
    Column("id", "question"),
    Column("cluster", "cluster"),
    Column("gold", "right answer"),
    Column("base_text", "said with the baseline"),
    Column("text", "said with the method"),
    Column("seed", "seed", on_page=False),
)


def methods_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for every method of every task, with the label that it has in all charts."""
    many = len(results["tasks"]) > 1
    return [
        {**row, "label": _label(task, row["method"], many)}
        for task in results["tasks"]
        for row in in_reading_order(task["methods"])
    ]


def differences(results: Mapping[str, Any]) -> list[Figure]:
    """Draw the paired difference of every method from the baseline."""
    arms = [
        {
            "arm": row["method"],
            "label": row["label"],
            "accuracy_change": pair["difference"],
            "accuracy_low": pair["low"],
            "accuracy_high": pair["high"],
            "items": pair["questions"],
            "detectable_points": None if could is None else 100 * could,
            # Where nothing could have been found, no difference can be told from any other.
            "accuracy_undetected": 1.0 if could is None else could,
            **{key: pair[key] for key in ("p", "p_holm", "mcnemar_p", "wins", "losses", "clusters")},
        }
        for row in methods_of(results)
        if (pair := row["paired"]) is not None and pair["difference"] is not None
        for could in [pair["detectable"]["value"]]
    ]
    extra = (
        Column("clusters", "clusters", "d"),
        Column("wins", "wins", "d"),
        Column("losses", "losses", "d"),
        Column("mcnemar_p", "p (McNemar)", P_VALUE),
        Column("detectable_points", "detectable (points)", ".1f"),
    )
    if not arms:
        return []
    title, against = "What every method changes", str(results["baseline"])
    return [
        intervals(
            "differences",
            title,
            arms,
            extra=extra,
            in_order=True,
            table_open=True,
            undetected=_UNDETECTED,
            first=("accuracy_change", "p_holm", "detectable_points", "wins", "losses"),
            against=against,
        )
    ]


def levels(results: Mapping[str, Any]) -> list[Figure]:
    """Draw what every method scores, the baseline too."""
    rows = [row for row in methods_of(results) if row["accuracy"] is not None]
    if not rows:
        return []
    drawn = [
        {
            "row": i,
            "label": row["label"],
            "value": 100 * row["accuracy"],
            "low": 100 * row["low"] if bounded([row]) else 100 * row["accuracy"],
            "high": 100 * row["high"] if bounded([row]) else 100 * row["accuracy"],
            "text": shown(row, _ACCURACY),
        }
        for i, row in enumerate(rows)
    ]
    return [
        Figure(
            name="levels",
            title="What every method scores",
            caption="A point is the mean over the questions that a method answered, its line the 95% interval. Methods"
            " answer the same questions, so whether two differ is seen in the differences, not in these intervals.",
            alternative=" ".join(f"{row['label']}: {shown(row, _ACCURACY)}." for row in rows),
            data={"levels": with_lines(drawn)},
            columns=(NAME, _ACCURACY, *_COUNTS),
            rows=rows,
            **dots("levels", rows, "Accuracy (%)", "accuracy", lines=bounded(rows)),
        )
    ]


def wins(results: Mapping[str, Any]) -> list[Figure]:
    """Draw how many questions every method wins and loses; the table names them."""
    paired = [row for row in methods_of(results) if row["paired"] is not None]
    many = len(results["tasks"]) > 1
    rows = [
        row | {"label": _label(task, row["method"], many)}
        for task in results["tasks"]
        for row in task["questions_differing"]
    ]
    if not paired or not rows:
        return []
    drawn: list[Row] = [
        {"row": i, "label": row["label"], "outcome": outcome, "value": sign * count, "count": count}
        for i, row in enumerate(paired)
        for outcome, sign in (("wins", 1), ("losses", -1))
        for count in [row["paired"][outcome]]
    ]
    # Losses go to the left and have the same weight. Few questions are counted one by one, because Vega halves a step
    # of one, whatever the smallest is.
    most = max((ceil(row["count"]) for row in drawn), default=0)
    each = {"values": list(range(-most, most + 1))} if most <= _COUNTED else {"tickMinStep": 1}
    axis = alt.Axis(grid=True, labelExpr="abs(datum.value)", **each)
    x = alt.X("value:Q", axis=axis).title("Questions lost (left) and won (right)")
    color = alt.Color("outcome:N", title=None, scale=alt.Scale(domain=["wins", "losses"]))
    tooltip = [alt.Tooltip("label:N", title="method"), alt.Tooltip("outcome:N"), alt.Tooltip("count:Q")]

    def draw(rows: Rows) -> alt.LayerChart:
        base = alt.Chart(named("questions"))
        bars = base.mark_bar(height=6).encode(x=x, color=color, tooltip=tooltip, **rows.place())
        return alt.LayerChart(layer=[zero_line("x"), *rows.names(once(base)), bars], height=rows.height)

    return [
        Figure(
            name="questions",
            title="Questions won and lost",
            caption="Questions that a method gets right and the baseline wrong, and the other way round. The table has"
            " every one of them, and those that ended in an error.",
            alternative=" ".join(_won(row) for row in paired),
            data={"questions": with_lines(drawn)} | NOTHING,
            columns=_QUESTIONS,
            rows=rows,
            table_open=True,
            **fitted([row["label"] for row in paired], draw),
        )
    ]


def breakdowns(results: Mapping[str, Any]) -> list[Figure]:
    """Draw the differences within groups of questions, a figure for every task."""
    figures = []
    extra = (Column("kind", "kind"), Column("group", "group"), Column("method", "method"))
    for i, task in enumerate(results["tasks"]):
        rows = [
            row
            | {
                "label": f"{spaced(row['kind'])}: {row['group']}, {row['method']}",
                "items": row["questions"],
                "accuracy_change": row["difference"],
                "accuracy_low": row["low"],
                "accuracy_high": row["high"],
            }
            for row in task["breakdowns"]
        ]
        moving = [row for row in rows if changes_anything(row)]
        if not moving:
            continue
        name, title = f"breakdown-{i + 1}", f"Within groups of {task['label']}"
        most = sorted(moving, key=lambda row: -row["questions"])[:MAX_DRAWN]
        kept = [row for row in moving if row in most]
        figure = intervals(name, title, kept, extra=extra, in_order=True, against=str(results["baseline"]))
        caption = (
            f"A point is the difference from {results['baseline']} on the questions of a group, its line the 95%"
            " interval. None of these is a test. Groups in which no answer changes are not drawn."
        )
        still = [row for row in rows if not changes_anything(row)]
        figure = replace(figure, caption=caption, folded=still, folded_title="rows in which no answer changes")
        if len(moving) > MAX_DRAWN:
            note = f"Drawn are the {MAX_DRAWN} of {len(moving)} groups with the most questions; the table has all."
            figure = replace(figure, rows=moving, note=note)
        figures.append(figure)
    return figures


def still_groups(results: Mapping[str, Any]) -> list[str]:
    """Say of each task whose groups are not drawn that nothing changes in any of them."""
    return [
        f"{task['label']}: in none of {counted(len(task['breakdowns']), 'row')} of groups and methods does an answer"
        " change; comparison.md lists them."
        for task in results["tasks"]
        if task["breakdowns"] and not any(map(changes_anything, task["breakdowns"]))
    ]


def spent(results: Mapping[str, Any]) -> list[Figure]:
    """Draw the time of a question, with memory, tokens and gain in the table."""
    rows = [
        row
        | row["cost"]
        | {key: (row["paired"] or {}).get(key) for key in ("difference", "low", "high")}
        | {"yes_share": (row.get("yes") or {}).get("share")}
        | {"batch": ", ".join(map(str, row["cost"]["batch"]))}
        for row in methods_of(results)
    ]
    timed = present(rows, "seconds")
    if not timed:
        return []
    drawn = [
        {"row": i, "label": row["label"], "value": row["seconds"], "text": number(row["seconds"], ".3g")}
        for i, row in enumerate(timed)
    ]
    columns = (
        NAME,
        Column("difference", "difference (points)", POINTS, ("low", "high")),
        Column("yes_share", "says yes", ".1%"),
        Column("seconds", "seconds a question", ".3g"),
        Column("timed", "questions timed", ",.0f"),
        Column("slower", "times slower, median (5% to 95% of questions)", ".2f", ("slower_low", "slower_high")),
        Column("memory_mb", "peak memory (MB)", ",.0f"),
        Column("prompt_tokens", "prompt tokens", ".1f"),
        Column("new_tokens", "new tokens", ".1f"),
        Column("batch", "batch"),
    )
    return [
        Figure(
            name="cost",
            title="What every method costs",
            caption="Mean seconds a question: its share of the time of its batch, where methods shared nothing.",
            alternative=" ".join(f"{row['label']}: {number(row['seconds'], '.3g')} s a question." for row in timed),
            data={"cost": with_lines(drawn)},
            columns=[c for c in columns if c.name == "label" or any(row.get(c.name) is not None for row in rows)],
            rows=rows,
            table_open=True,
            **dots("cost", timed, "Seconds a question", "seconds", lines=False, zero=True),
        )
    ]


def seeds(results: Mapping[str, Any]) -> list[Figure]:
    """Draw what every method scores in every seed."""
    many = [row | row["by_seed"] for row in methods_of(results) if row["by_seed"]]
    if not many:
        return []
    drawn = [
        {"row": i, "label": row["label"], "value": 100 * value, "text": number(value, ".1%")}
        for i, row in enumerate(many)
        for value in row["values"]
    ]
    rows = [
        row
        | {"seeds": len(row["values"])}
        | {f"gain_{key}": ((row["paired"] or {}).get("by_seed") or {}).get(key) for key in ("mean", "deviation")}
        for row in many
    ]
    columns = (
        NAME,
        Column("seeds", "seeds", "d"),
        Column("mean", "accuracy, mean", ".1%"),
        Column("deviation", "accuracy, deviation", ".2%"),
        Column("gain_mean", "difference, mean", POINTS),
        Column("gain_deviation", "difference, deviation", ".2%"),
    )
    return [
        Figure(
            name="seeds",
            title="What every seed scores",
            caption="A point is a seed, on the same questions. The deviation is that of seeds; it says nothing of how"
            " other questions would be answered.",
            alternative=" ".join(
                f"{row['label']}: {number(row['mean'], '.1%')}, deviation {number(row['deviation'], '.2%')}."
                for row in many
            ),
            data={"seeds": with_lines(drawn)},
            columns=columns,
            rows=rows,
            table_open=True,
            **dots("seeds", many, "Accuracy (%)", "accuracy", lines=False),
        )
    ]


def _won(row: Row) -> str:
    pair = row["paired"]
    size = interval(pair["difference"], pair["low"], pair["high"], POINTS)
    return f"{row['label']}: {number(pair['wins'])} won, {number(pair['losses'])} lost, difference {size}."


def _label(task: Mapping[str, Any], method: str, many: bool) -> str:
    return f"{task['label']}: {method}" if many else str(method)
