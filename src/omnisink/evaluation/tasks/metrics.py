"""What a run scored: one number, with breakdowns, as each benchmark reports it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from omnisink.errors import OmnisinkError

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A score of some questions: the mean of how right the answers are, from 0 to 1, and how many there are."""

    score: float
    questions: int


@dataclass(frozen=True)
class Scores:
    """Scores of a run.

    Attributes
    ----------
    metric : str
        Name of the metric.
    value : float or None
        The benchmark's own number, from 0 to 1; None where nothing was answered.
    questions : int
        Answered questions, which are what all scores are about.
    errors : int
        Questions that could not be asked; they are not wrong answers and count nowhere else.
    unparsed : int
        Answered questions whose answer could not be read; they count as wrong.
    breakdowns : mapping of str to mapping of str to Cell
        Scores by field of groups and by group. A question in several groups of a field counts in each.
    extra : mapping of str to mapping of str to float
        What the metric reports besides, by group; ``"all"`` is all questions.
    """

    metric: str
    value: float | None
    questions: int
    errors: int
    unparsed: int
    breakdowns: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    extra: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def measure(
    records: Iterable[Record], metric: str = "accuracy", breakdowns: Sequence[str] = (), mean_over: str = ""
) -> Scores:
    """Sum up a run.

    Parameters
    ----------
    records : iterable of mapping
        One a question, with ``right`` (bool, or from 0 to 1), ``gold``, ``parsed`` and ``groups``. Where ``error`` is
        there and not None, the question could not be asked and the rest is not looked at.
    metric : str
        One of `METRICS`.
    breakdowns : sequence of str
        Fields of groups.
    mean_over : str
        The field whose groups weigh the same, for the metric ``"group_mean"``.

    Returns
    -------
    Scores
        The scores.

    Raises
    ------
    OmnisinkError
        If the metric is unknown, or a mean over groups is wanted and a question is in none.
    """
    if metric not in METRICS:
        raise OmnisinkError(f"unknown metric {metric!r}: use one of {', '.join(METRICS)}")
    given = list(records)
    asked = [r for r in given if r.get("error") is None]
    tables = {name: {group: _cell(rows) for group, rows in _by(asked, name).items()} for name in breakdowns}
    value, extra = METRICS[metric](asked, breakdowns, mean_over) if asked else (None, {})
    return Scores(
        metric,
        value,
        len(asked),
        len(given) - len(asked),
        sum(r.get("parsed") is None for r in asked),
        tables,
        extra,
    )


Extra = dict[str, dict[str, float]]


def _accuracy(records: list[Record], breakdowns: Sequence[str], mean_over: str) -> tuple[float, Extra]:
    """Mean over questions."""
    return _cell(records).score, {}


def _group_mean(records: list[Record], breakdowns: Sequence[str], mean_over: str) -> tuple[float, Extra]:
    """Mean over groups of the means over their questions: MVBench's average of 20 tasks, MLVU's M-Avg."""
    groups = _by(records, mean_over)
    if sum(len(rows) for rows in groups.values()) < len(records):
        raise OmnisinkError(f"a mean over {mean_over!r} needs every question to be in such a group")
    return sum(_cell(rows).score for rows in groups.values()) / len(groups), {
        "all": {"mean over questions": _cell(records).score}
    }


def _yes_no(records: list[Record], breakdowns: Sequence[str], mean_over: str) -> tuple[float, Extra]:
    """AVHBench: accuracy; precision, recall and F1 of yes, and how often yes is said."""
    return _cell(records).score, _each(records, breakdowns, _detection)


def _cmm(records: list[Record], breakdowns: Sequence[str], mean_over: str) -> tuple[float, Extra]:
    """CMM: accuracy; that of questions whose answer is yes (PA), and of those whose answer is no (HR)."""
    return _cell(records).score, _each(records, breakdowns, _perception)


def _readable(records: list[Record], breakdowns: Sequence[str], mean_over: str) -> tuple[float, Extra]:
    """Video-MME: accuracy; and that of the answers that could be read, which its own program reports."""
    return _cell(records).score, _each(records, breakdowns, _of_readable)


Metric = Callable[[list[Record], Sequence[str], str], tuple[float, Extra]]

#: All metrics, by name.
METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "group_mean": _group_mean,
    "yes_no": _yes_no,
    "cmm": _cmm,
    "readable": _readable,
}


def _detection(records: list[Record]) -> dict[str, float]:
    said = sum(r["parsed"] == "yes" for r in records)
    true = sum(r["gold"] == "yes" for r in records)
    both = sum(r["parsed"] == r["gold"] == "yes" for r in records)
    return {
        "precision": both / said if said else 0.0,
        "recall": both / true if true else 0.0,
        "f1": 2 * both / (said + true) if said + true else 0.0,
        "yes": said / len(records),
    }


def _perception(records: list[Record]) -> dict[str, float]:
    found = {}
    for name, answer in (("perception accuracy", "yes"), ("hallucination resistance", "no")):
        if rows := [r for r in records if r["gold"] == answer]:
            found[name] = _cell(rows).score
    return found


def _of_readable(records: list[Record]) -> dict[str, float]:
    rows = [r for r in records if r.get("parsed") is not None]
    return {"accuracy of readable answers": _cell(rows).score} if rows else {}


def _each(records: list[Record], breakdowns: Sequence[str], what: Callable[[list[Record]], dict[str, float]]) -> Extra:
    parts = {group: what(rows) for name in breakdowns for group, rows in _by(records, name).items()}
    return {"all": what(records), **parts}


def in_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return what sorts names by the alphabet, and numbers in them by their size: "512" is before "1024"."""
    parts = re.split(r"([0-9]+)", name)
    # A number with more digits is larger; without zeros before them, others compare as texts do.
    digits = [part.lstrip("0") for part in parts]
    return tuple((len(d), d) if i % 2 else (-1, part) for i, (part, d) in enumerate(zip(parts, digits, strict=True)))


def _by(records: Iterable[Record], name: str) -> dict[str, list[Record]]:
    """Return the records of every group of a field, in the order of the alphabet, and numbers by their size."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        for group in record["groups"].get(name, ()):
            groups.setdefault(group, []).append(record)
    return dict(sorted(groups.items(), key=lambda item: in_order(item[0])))


def _cell(records: Sequence[Record]) -> Cell:
    return Cell(sum(float(r["right"]) for r in records) / len(records), len(records))
