"""The results of a study as an object: in a line, in a notebook, as tables of pandas, and as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from omnisink.errors import OmnisinkError
from omnisink.results.document import Document
from omnisink.results.frames import data_frame, html_table
from omnisink.results.schema import STUDY_FORMAT
from omnisink.results.wording import LEVEL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_SECTIONS = ("identification", "heads", "values", "causality", "direction")
#: Measure: its label with the unit, and what numbers are multiplied by.
_MEASURES = {"loss": ("loss change (nats)", 1), "accuracy": ("accuracy change (percentage points)", 100)}


class StudyResults(Document):
    """What a study found: a dictionary as ``results.json`` has it, with tables and figures.

    `StudyResults.load` reads the folder of a study, or its ``results.json``.
    """

    FORMAT: ClassVar[str] = STUDY_FORMAT
    FILE: ClassVar[str] = "results.json"
    KIND: ClassVar[str] = "the results of a study"

    @property
    def tables(self) -> dict[str, list[Mapping[str, Any]]]:
        """Every table of the results by name: rows of numbers, ``"arms"``, ``"zero_k"``, ``"heads"`` and so on."""
        return {
            name: rows
            for section in (self[name] for name in _SECTIONS if isinstance(self.get(name), Mapping))
            for name, rows in section.items()
            if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows)
        }

    def rows(self, name: str) -> list[Mapping[str, Any]]:
        """Return one table.

        Raises
        ------
        OmnisinkError
            If the results have no such table.
        """
        if name not in self.tables:
            raise OmnisinkError(f"these results have no table {name!r}; there are {', '.join(self.tables) or 'none'}")
        return self.tables[name]

    def to_dataframe(self, name: str = "arms") -> pd.DataFrame:
        """Return one table of the results as one of pandas.

        Parameters
        ----------
        name : str
            Of `tables`: ``"arms"`` are the conditions that ask what causes what.

        Returns
        -------
        DataFrame
            A row for each of the table's, with its numbers as they are recorded.

        Raises
        ------
        OmnisinkError
            If there is no such table, or pandas is not installed.
        """
        rows = self.rows(name)
        heads = dict.fromkeys(head for row in rows for head in row)
        return data_frame({head: [row.get(head) for row in rows] for head in heads})

    def plot(self, what: str = "arms", *, measure: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw one figure with Matplotlib.

        Parameters
        ----------
        what : {"arms", "pruning", "zero_k", "heads"}
            ``"arms"`` and ``"pruning"``: what each condition changes, with 95 % intervals. ``"zero_k"``: a curve over
            the number of the sink's key channels that are set to zero, from n = 0. ``"heads"``: a heat map of the mean
            attention mass of every head on the sink.
        measure : {"loss", "accuracy", "attention"}, optional
            What is drawn: a change of the loss or of the accuracy; or for ``"zero_k"`` the attention to the sink that
            is left, which is the default there.
        ax : Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        Axes
            With everything drawn.

        Raises
        ------
        OmnisinkError
            If Matplotlib is not installed, or the results do not hold what is to be drawn.
        """
        if what not in ("arms", "pruning", "zero_k", "heads"):
            raise OmnisinkError(
                f"there is no figure {what!r} of a study; there are 'arms', 'pruning', 'zero_k' and 'heads'"
            )
        measure = measure or ("attention" if what == "zero_k" else "loss")
        if measure not in (*_MEASURES, *(["attention"] if what == "zero_k" else [])):
            raise OmnisinkError(f"there is no measure {measure!r} of {what}; there are 'loss' and 'accuracy'")
        # Results of earlier versions have the attention only of the heads that were zeroed.
        every_head = what == "heads" and "sink_attention" in self.tables
        rows = self.rows("sink_attention" if every_head else what)
        with self.reading(f"the figure {what!r}"):
            if what == "heads":
                return _heads(rows, ax)
            return _zero_k(rows, measure, ax) if what == "zero_k" else _changes(rows, measure, ax)

    def __repr__(self) -> str:
        """Say in one line what was studied, and how the model does without any change."""
        base, name = self.get("baseline") or {}, _model(self)
        numbers = [
            f"{label} {form.format(base[key])}"
            for key, label, form in (("accuracy", "accuracy", "{:.1%}"), ("loss", "loss", "{:.3f} nats"))
            if isinstance(base.get(key), int | float)
        ]
        parts = [f"{base.get('items', 0)} items", ", ".join(k for k in _SECTIONS if k in self) or "no section"]
        if numbers:
            parts.append(f"baseline: {', '.join(numbers)}")
        return f"StudyResults({name}: {'; '.join(parts)})"

    def _repr_html_(self) -> str:
        """Show the findings in a notebook, question by question."""
        readings = self.get("readings") or {}
        rows = [(question, line) for question, lines in readings.items() for line in lines]
        return html_table(repr(self), ("question", "finding"), rows)


def _model(results: Mapping[str, Any]) -> str:
    model = (results.get("run") or {}).get("model")
    return str(model.get("name") if isinstance(model, Mapping) else model)


def _changes(rows: list[Mapping[str, Any]], measure: str, ax: Axes | None) -> Axes:
    from omnisink.plotting.changes import Change, draw_changes

    label, times = _MEASURES[measure]
    changes = []
    for row in rows:
        change, low, high = (row[f"{measure}_{part}"] for part in ("change", "low", "high"))
        if change is not None:
            if low is None or high is None:
                ends: dict[str, float] = {}
            else:
                ends = {"low": times * low, "high": times * high}
            clear = measure == "loss" and row["p_holm"] is not None and row["p_holm"] < LEVEL
            changes.append(Change(str(row.get("label") or row["arm"]), times * change, clear=clear, **ends))
    if not changes:
        raise OmnisinkError(f"no {measure} was measured in this study")
    return draw_changes(changes, label, "What each condition changes, on the same items", ax=ax)


def _zero_k(rows: list[Mapping[str, Any]], measure: str, ax: Axes | None) -> Axes:
    """Draw from n = 0: by definition nothing has changed there; the attention was measured in the first run."""
    from omnisink.plotting.zero_k import draw_zero_k

    rows = sorted(rows, key=lambda row: int(row["n"]))
    if measure == "attention":
        parts = ("mass", "mass_low", "mass_high")
        found = [tuple(row.get(part) for part in parts) for row in rows]
        found = [tuple(rows[0].get(part.replace("mass", "mass_before")) for part in parts), *found]
        drawn = [
            (n, *row)
            for n, row in zip([0, *(int(row["n"]) for row in rows)], found, strict=True)
            if row[0] is not None
        ]
        if not drawn:
            raise OmnisinkError("no attention was measured in this study")
        counts, values, low, high = zip(*drawn, strict=True)
        ends = [[100 * v for v in end] if None not in (*low, *high) else None for end in (low, high)]
        label = "attention mass on the sink (%)"
        return draw_zero_k(counts, [100 * v for v in values], label, low=ends[0], high=ends[1], ax=ax)
    label, times = _MEASURES[measure]
    given = [row for row in rows if row[f"{measure}_change"] is not None]
    if not given:
        raise OmnisinkError(f"no {measure} was measured in this study")
    whole = all(row[f"{measure}_{end}"] is not None for row in given for end in ("low", "high"))
    low, high = (
        [0.0, *(times * row[f"{measure}_{end}"] for row in given)] if whole else None for end in ("low", "high")
    )
    values = [0.0, *(times * row[f"{measure}_change"] for row in given)]
    return draw_zero_k([0, *(int(row["n"]) for row in given)], values, label, low=low, high=high, ax=ax)


def _heads(rows: list[Mapping[str, Any]], ax: Axes | None) -> Axes:
    import numpy as np

    from omnisink.plotting.heads import draw_heads

    layers = sorted({int(row["layer"]) for row in rows})
    mass = np.full((len(layers), 1 + max(int(row["head"]) for row in rows)), np.nan)
    for row in rows:
        mass[layers.index(int(row["layer"])), int(row["head"])] = row["sink_attention"]
    return draw_heads(mass, layers, "sinks, mean over items", ax=ax)
