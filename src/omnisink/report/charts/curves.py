"""What every method scores along a quantity: the length of a prompt, the place of an answer, or any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from omnisink.report.charts.lines import distinct, draw_lines, line_rows, value_axis
from omnisink.report.figure import Column, Figure, Row
from omnisink.report.words import bounded, present
from omnisink.results.wording import interval, number


@dataclass(frozen=True)
class Quantity:
    """What a curve runs along.

    Attributes
    ----------
    field : str
        Its field in the rows.
    title : str
        Of the axis, with the unit.
    head : str
        Of the column of the table.
    form : str
        Format of its numbers in table and text, see `words.number`.
    marks : str
        Format of the numbers on the axis, as d3 has them.
    """

    field: str
    title: str
    head: str
    form: str = ",.0f"
    marks: str = ","


#: Quantities that have words of their own, by the kind of the groups.
KNOWN = {
    "length": Quantity("at", "Length of prompt and answer (tokens)", "length (tokens)"),
    "depth": Quantity("at", "Place in the text, from its beginning (%)", "place (%)", ".4g"),
    "skip ratio": Quantity("at", "Key/value heads left out (%)", "left out (%)", ".1f", ".3~g"),
}
_COUNT = Column("questions", "questions", "d")
_ACCURACY = Column("accuracy", "accuracy", ".1%", ("low", "high"))


def accuracy_along(name: str, title: str, quantity: Quantity, rows: Sequence[Row], caption: str = "") -> Figure:
    """Draw the accuracy of every method along a quantity, with 95% intervals.

    Parameters
    ----------
    name, title : str
        Of the figure.
    quantity : Quantity
        What the horizontal axis is: a field of the rows.
    rows : sequence of mappings
        With `method`, a `series` where methods share a line, the field of the quantity, `accuracy`, its ends `low`
        and `high`, which may be None, and the number of `questions`; at least one. The points of a line are joined
        from left to right.
    caption : str
        What stands before the explanation of the marks.

    Returns
    -------
    Figure
        One line for each method.
    """
    known = [row for row in present(rows, "accuracy") if row.get(quantity.field) is not None]
    percent = [
        {
            quantity.field: row[quantity.field],
            "series": str(row.get("series", row["method"])),
            "value": 100 * row["accuracy"],
            "low": None if row.get("low") is None else 100 * row["low"],
            "high": None if row.get("high") is None else 100 * row["high"],
        }
        for row in known
    ]
    drawn = line_rows(percent, ".1f", along=quantity.field)
    marks = "A point is the mean over the questions that a method answered" + (
        ", its band the 95% interval. Methods answer the same questions, so that their intervals do not tell whether"
        " they differ."
        if bounded(known)
        else "."
    )
    said = [
        f"{row['method']} at {number(row[quantity.field], quantity.form)}: "
        f"{interval(row['accuracy'], row.get('low'), row.get('high'), '.1%')}."
        for row in known
    ]
    tooltip = alt.Tooltip(f"{quantity.field}:Q", title=quantity.head, format=quantity.marks)
    return Figure(
        name=name,
        title=title,
        caption=f"{caption} {marks}".strip(),
        alternative=" ".join(said),
        chart=draw_lines(
            name, _axis(quantity, drawn), value_axis("Accuracy (%)"), distinct(drawn, "series"), drawn, tooltip
        ),
        data={name: drawn},
        columns=(Column("method", "method"), Column(quantity.field, quantity.head, quantity.form), _COUNT, _ACCURACY),
        rows=rows,
    )


def curves(results: Mapping[str, Any]) -> list[Figure]:
    """Draw the accuracy of every method along every kind of groups that are numbers, a figure for each of a task."""
    figures = []
    for i, task in enumerate(results["tasks"]):
        rows = task.get("curves") or ()
        for j, kind in enumerate(distinct(rows, "kind")):
            quantity = KNOWN.get(kind, Quantity("at", kind.capitalize(), kind, ".4g"))
            own = [row for row in rows if row["kind"] == kind]
            figures.append(accuracy_along(f"curve-{i + 1}-{j + 1}", f"{task['label']}, by {kind}", quantity, own))
    return figures


def _axis(quantity: Quantity, rows: Sequence[Row]) -> alt.X:
    """Return an axis with a mark at every place that was measured; a logarithmic one where they are far apart."""
    places = sorted({row[quantity.field] for row in rows}) or [0]
    far = places[0] > 0 and places[-1] >= 4 * places[0]
    scale = alt.Scale(type="log" if far else "linear", domain=_ends(places), nice=False, padding=10)
    axis = alt.Axis(values=places, format=quantity.marks)
    return alt.X(f"{quantity.field}:Q", scale=scale, axis=axis, title=quantity.title)


def _ends(places: Sequence[float]) -> list[float]:
    first, last = places[0], places[-1]
    return [first, last] if first < last else [first - 1, first + 1]
