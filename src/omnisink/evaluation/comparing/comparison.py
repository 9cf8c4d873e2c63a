"""A comparison as an object: in a line, in a notebook, as a table of pandas, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from omnisink.errors import OmnisinkError
from omnisink.results.document import Document
from omnisink.results.frames import data_frame, html_table
from omnisink.results.schema import COMPARISON_FORMAT
from omnisink.results.wording import LEVEL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: Columns of a method itself, and of its comparison with the baseline.
_OWN = ("answered", "errors", "unparsed", "accuracy", "low", "high")
_PAIRED = ("difference", "low", "high", "p", "p_holm", "mcnemar_p", "wins", "losses", "clusters", "verdict")


class Comparison(Document):
    """Methods beside a baseline: a dictionary as ``comparison.json`` has it, with a table and a figure.

    `Comparison.load` reads the folder that ``omnisink compare`` wrote, or its ``comparison.json``.
    """

    FORMAT: ClassVar[str] = COMPARISON_FORMAT
    FILE: ClassVar[str] = "comparison.json"
    KIND: ClassVar[str] = "a comparison"

    def answers(self) -> list[str]:
        """Answer for each task whether the methods help: a sentence with yes, no, or cannot tell."""
        from omnisink.evaluation.comparing.summary import answer

        with self.reading("the answers"):
            return [answer(task, self["baseline"]) for task in self["tasks"]]

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row for every task and method.

        Returns
        -------
        DataFrame
            ``task``, ``method``, ``baseline`` (bool), counts, ``accuracy`` with its interval (``low``, ``high``), the
            share of yes among the answers to yes/no questions (``yes_share``, ``yes_low``, ``yes_high``), and for all
            but the baseline the paired ``difference`` with its interval (``difference_low`` and so on), p values,
            ``wins``, ``losses``, the smallest difference that could be detected, and the verdict. Shares and
            differences are fractions of 1.

        Raises
        ------
        OmnisinkError
            If pandas is not installed.
        """
        with self.reading("the table"):
            rows = [self._row(task, row) for task in self["tasks"] for row in task["methods"]]
        return data_frame({head: [row[head] for row in rows] for head in (rows[0] if rows else {})})

    def plot(self, task: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the difference of every method from the baseline, with what could not have been detected.

        Parameters
        ----------
        task : str, optional
            Label of one task; None draws all.
        ax : Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        Axes
            Points with 95 % intervals, in percentage points; a grey bar spans the differences that these questions
            would have missed more often than one time in five.

        Raises
        ------
        OmnisinkError
            If Matplotlib is not installed, there is no such task, or nothing was compared.
        """
        from omnisink.plotting.changes import draw_changes

        with self.reading("the figure"):
            labels = [about["label"] for about in self["tasks"]]
            if task is not None and task not in labels:
                raise OmnisinkError(f"there is no task {task!r} in this comparison; there are {', '.join(labels)}")
            about = [t for t in self["tasks"] if task in (None, t["label"])]
            changes = [
                _change(row["method"] if len(about) == 1 else f"{t['label']}: {row['method']}", row["paired"])
                for t in about
                for row in t["methods"]
                if row["paired"] is not None and row["paired"]["difference"] is not None
            ]
            where = f", {about[0]['label']}" if len(about) == 1 else ""
            heading = f"Difference from {self['baseline']}{where}"
        if not changes:
            raise OmnisinkError("there is nothing to draw: no method was compared with the baseline")
        return draw_changes(changes, "accuracy difference (percentage points)", heading, ax=ax)

    def __repr__(self) -> str:
        """Say what was compared on what, and the verdict on every method."""
        tasks = self.get("tasks") or []
        said = [
            f"{task.get('label')}, {row.get('method')}: {row['paired'].get('verdict')}"
            for task in tasks
            for row in task.get("methods") or []
            if row.get("paired")
        ]
        questions = sum(task.get("questions") or 0 for task in tasks)
        return f"Comparison(with {self.get('baseline')}, {questions:,d} questions; {'; '.join(said) or 'no method'})"

    def _repr_html_(self) -> str:
        """Show a row for every method in a notebook, and the verdict first."""
        from omnisink.evaluation.comparing.tables import tables_of

        with self.reading("the table"):
            table = next(iter(tables_of(self)), None)
            if table is None:
                return html_table(repr(self), (), ())
            order = [
                len(table.heads) - 1 if i == table.left else i - (i > table.left) for i in range(len(table.heads))
            ]
            rows = [[row[i] for i in order] for row in table.rows]
            return html_table(" ".join(self.answers()), [table.heads[i] for i in order], rows)

    def _row(self, task: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        pair = row["paired"] or {}
        paired = {name if name not in ("low", "high") else f"difference_{name}": pair.get(name) for name in _PAIRED}
        said = row.get("yes") or {}
        own = {name: row[name] for name in _OWN} | {f"yes_{name}": said.get(name) for name in ("share", "low", "high")}
        names = {"task": task["label"], "method": row["method"], "baseline": row["method"] == self["baseline"]}
        return {**names, **own, **paired, "detectable": (pair.get("detectable") or {}).get("value")}


def _change(name: str, pair: Mapping[str, Any]) -> Any:
    from omnisink.plotting.changes import Change

    low, high = (None if pair[end] is None else 100 * pair[end] for end in ("low", "high"))
    seen = (pair.get("detectable") or {}).get("value")
    clear = pair["p_holm"] is not None and pair["p_holm"] < LEVEL
    return Change(name, 100 * pair["difference"], low, high, clear, None if seen is None else 100 * seen)
