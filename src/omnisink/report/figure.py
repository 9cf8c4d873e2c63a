"""A figure of the report: a chart, what it says in words, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

Row = Mapping[str, Any]

#: Width of a chart in a file, in pixels before scaling.
WIDTH = 760


@dataclass(frozen=True)
class Column:
    """A column of a figure's table.

    Parameters
    ----------
    name : str
        Key of the row, and head of the column in the CSV file.
    title : str
        Head of the column on the page, with its unit.
    form : str
        Format of its numbers on the page, see `words.number`; CSV files hold numbers in full.
    ends : tuple of str
        Keys of the two ends of its interval, where it has one. They are columns of their own in the CSV file.
    code : bool
        It holds names out of code; on the page they are words.
    on_page : bool
        Whether the page shows it, and not only the CSV file.
    """

    name: str
    title: str
    form: str = ""
    ends: tuple[str, ...] = ()
    code: bool = False
    on_page: bool = True


@dataclass(frozen=True)
class Figure:
    """A chart with its words and numbers.

    Parameters
    ----------
    name : str
        Stem of the files and anchor on the page.
    title : str
        Title of the chart.
    caption : str
        One or two plain sentences on how to read it.
    alternative : str
        The numbers in words, for readers who cannot see the chart.
    chart : altair chart
        Vega-Lite, without title, width and theme; its data are named, not inlined.
    data : mapping
        Rows for every name of data in the chart. A name stands for the same rows in all figures of a report.
    columns, rows
        The numbers: what the table and the CSV file show.
    narrowest : int
        Width in pixels below which the chart gives way to `narrow`, or scrolls in its box rather than shrink.
    narrow : altair chart, optional
        The same for a narrow box, with the same data.
    beside : int
        Pixels beside each plot of several, for its axes; a single plot is fitted with its axes inside.
    panel : int
        Of plots side by side, the width in pixels that each needs; more columns than fit become rows.
    many_marks : bool
        Draw on a canvas: thousands of marks are too many for the page's own tree.
    table_open : bool
        Show the table from the start.
    note : str
        Note about numbers that were left out or grouped, if any were.
    folded : sequence of Row
        Rows that say nothing new: a table of their own that is closed at first, and the last rows of the CSV file.
    folded_title : str
        What they have in common.
    """

    name: str
    title: str
    caption: str
    alternative: str
    chart: alt.TopLevelMixin
    data: Mapping[str, Sequence[Row]]
    columns: Sequence[Column]
    rows: Sequence[Row]
    narrowest: int = 280
    narrow: alt.TopLevelMixin | None = None
    beside: int = 78
    panel: int = 240
    many_marks: bool = False
    table_open: bool = False
    note: str = ""
    folded: Sequence[Row] = ()
    folded_title: str = ""
    _spec: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_spec", _bare(self.chart))

    def spec(self) -> dict[str, Any]:
        """Return the chart as Vega-Lite, without data and theme."""
        return dict(self._spec)

    def narrow_spec(self) -> dict[str, Any] | None:
        """Return the chart for a narrow box as Vega-Lite, without data and theme; None where there is none."""
        return None if self.narrow is None else _bare(self.narrow)

    def whole_spec(self, width: int = WIDTH) -> dict[str, Any]:
        """Return the chart as Vega-Lite with its data, at a width in pixels."""
        spec = self.spec() | {"datasets": {name: list(rows) for name, rows in self.data.items()}}
        if "concat" in spec:
            columns = min(int(spec["columns"]), max(1, width // self.panel))
            each = (width - spec["spacing"] * (columns - 1)) // columns - self.beside
            spec |= {"columns": columns, "concat": [view | {"width": each} for view in spec["concat"]]}
        elif "vconcat" in spec:
            spec["vconcat"] = [view | {"width": width - self.beside} for view in spec["vconcat"]]
        else:
            spec |= {"width": width, "autosize": {"type": "fit-x", "contains": "padding"}}
        return spec


def _bare(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart as Vega-Lite without a theme: whoever draws it adds one, over which altair's would win."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)
    return spec


def named(name: str) -> alt.NamedData:
    """Refer to a figure's data by name."""
    return alt.NamedData(name=name)
