"""A comparison as files: tables in Markdown and LaTeX, all numbers as JSON, and wins and losses as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnisink.evaluation.comparing.summary import in_reading_order
from omnisink.evaluation.comparing.wording import NOTHING, detected
from omnisink.results.disk import os_errors_named
from omnisink.results.markup import plain_markdown as _plain
from omnisink.results.spreadsheet import cell
from omnisink.results.wording import MISSING, PERCENT, interval, number, p_value, percent, points, points_interval

#: Columns of the file of questions.
QUESTIONS = ("task", "method", "outcome", "id", "cluster", "seed", "gold", "base_text", "text")
#: What stands for itself in LaTeX only with something before or around it.
_LATEX = {
    "\\": r"\textbackslash{}",
    "|": r"\textbar{}",
    "[": "{[}",  # a row that begins with a bracket would be read as the space that the row before it asks for
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "−": "$-$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\ldots{}",
    "\n": " ",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """A table of texts, whose first columns, which hold names, are set to the left.

    Attributes
    ----------
    name, title : str
        A label, and what stands above it.
    heads : tuple of str
        Heads of the columns.
    rows : list of tuple of str
        Cells as they are read.
    left : int
        How many columns hold names.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: int


def tables_of(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables: differences, cost, the share of yes, the benchmark's own numbers, seeds, groups, curves.

    Parameters
    ----------
    results : mapping
        What `omnisink.evaluation.comparing.compare.compare` returned.

    Returns
    -------
    list of Table
        Those that have rows.
    """
    rows = [(task, row) for task in results["tasks"] for row in in_reading_order(task["methods"])]
    many = len({task["label"] for task, _ in rows}) > 1
    heads = ("task", "method")
    title = f"Differences from {results['baseline']}" if many else results["tasks"][0]["label"]
    tables = [
        Table("accuracy", title, (*heads, *_MAIN), [(t["label"], r["method"], *_main(r)) for t, r in rows], 2),
        Table("cost", "Gain and cost", (*heads, *_COST), [(t["label"], r["method"], *_cost(r)) for t, r in rows], 2),
        Table("yes", "How often the answer is yes", (*heads, *_YES), [_yes(t, r) for t, r in rows if r.get("yes")], 2),
        Table("reported", "What the benchmark reports", ("task", "method", "number", "value"), _reported(rows), 3),
        Table("seeds", "Over seeds", (*heads, *_SEEDS), [_seeds(t, r) for t, r in rows if r["by_seed"]], 2),
        Table(
            "breakdowns",
            "Breakdowns, which are not tests",
            ("task", "kind", "group", "method", "questions", "accuracy", "difference (points)"),
            [_breakdown(task, row) for task in results["tasks"] for row in task["breakdowns"]],
            4,
        ),
        Table(
            "curves",
            "Accuracy in groups that are numbers",
            ("task", "kind", "group", "method", "questions", "accuracy (95% interval)"),
            [_point(task, row) for task in results["tasks"] for row in task.get("curves", ())],
            4,
        ),
    ]
    return [table for table in tables if table.rows]


_MAIN = (
    "accuracy (95% interval)",
    "difference (points)",
    "p",
    "Holm p",
    "McNemar p",
    "wins",
    "losses",
    "detectable (points)",
    "errors",
    "unparsed",
    "verdict",
)
_COST = (
    "difference (points)",
    "says yes",
    "s / question",
    "timed",
    "times slower",
    "peak memory (MB)",
    "prompt tokens",
    "new tokens",
)
_YES = ("says yes (95% interval)", "right answers that are yes", "yes/no questions", "accuracy", "difference (points)")
_SEEDS = ("seeds", "accuracy, mean ± deviation", "difference, mean ± deviation (points)")


def _main(row: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = _accuracy(row)
    counts = (number(row["errors"]), number(row["unparsed"]))
    pair = row["paired"]
    if pair is None or pair["verdict"] == NOTHING:
        return (accuracy, *[MISSING] * 7, *counts, MISSING if pair is None else NOTHING)
    return (
        accuracy,
        _difference(pair),
        p_value(pair["p"]),
        p_value(pair["p_holm"]),
        p_value(pair["mcnemar_p"]),
        number(pair["wins"]),
        number(pair["losses"]),
        detected(pair["detectable"]),
        *counts,
        pair["verdict"],
    )


def _cost(row: Mapping[str, Any]) -> tuple[str, ...]:
    spent = row["cost"]
    slower = interval(spent["slower"], spent["slower_low"], spent["slower_high"], ",.2f")
    return (
        MISSING if row["paired"] is None else _difference(row["paired"]),
        percent((row.get("yes") or {}).get("share")),
        number(spent["seconds"], ",.3f"),
        number(spent["timed"]),
        slower,
        number(spent["memory_mb"], ",.0f"),
        number(spent["prompt_tokens"], ",.1f"),
        number(spent["new_tokens"], ",.1f"),
    )


def _reported(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[tuple[str, ...]]:
    found = [(task["label"], row["method"], row.get("reported") or {}) for task, row in rows]
    return [(task, method, name, percent(value)) for task, method, own in found for name, value in own.items()]


def _yes(task: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    said = row["yes"]
    return (
        task["label"],
        row["method"],
        interval(said["share"], said["low"], said["high"], PERCENT),
        percent(said["right"]),
        number(said["questions"]),
        percent(row["accuracy"]),
        MISSING if row["paired"] is None else _difference(row["paired"]),
    )


def _seeds(task: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    own, pair = row["by_seed"], row["paired"]
    gain = None if pair is None else pair["by_seed"]
    return (
        task["label"],
        row["method"],
        f"{len(own['values'])}",
        f"{percent(own['mean'])} ± {points(own['deviation'], sign=False)}",
        MISSING if not gain else f"{points(gain['mean'])} ± {points(gain['deviation'], sign=False)}",
    )


def _breakdown(task: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    names = (task["label"], row["kind"], row["group"], row["method"])
    return (*names, number(row["questions"]), percent(row["accuracy"]), _difference(row))


def _point(task: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    names = (task["label"], row["kind"], row["group"], row["method"])
    return (*names, number(row["questions"]), _accuracy(row))


def _accuracy(row: Mapping[str, Any]) -> str:
    return interval(row["accuracy"], row["low"], row["high"], PERCENT)


def _difference(row: Mapping[str, Any]) -> str:
    return points_interval(row["difference"], row["low"], row["high"])


def markdown(results: Mapping[str, Any]) -> str:
    """Return the comparison in Markdown: the verdicts, what to know of the numbers, and the tables."""
    parts = ["# Comparison", *(f"- {_plain(text)}" for text in results["verdicts"])]
    notes = [f"- {_plain(task['label'])}: {_plain(note)}" for task in results["tasks"] for note in task["notes"]]
    blocks = ["\n".join([parts[0], "", *parts[1:]]).strip(), "\n".join(notes), *map(_markdown, tables_of(results))]
    return "\n\n".join([*filter(None, blocks), _plain(_foot(results))]) + "\n"


def latex(results: Mapping[str, Any]) -> str:
    r"""Return the tables in LaTeX. They need ``\usepackage{booktabs}``."""
    sentences = [f"% {' '.join(text.split())}" for text in [*results["verdicts"], _foot(results)]]
    return "\n".join([*sentences, "", *map(_latex, tables_of(results))])


def write_tables(results: Mapping[str, Any], out: str | Path) -> list[Path]:
    """Write ``comparison.md``, ``comparison.tex``, ``comparison.json`` and ``questions.csv``.

    Parameters
    ----------
    results : mapping
        What `omnisink.evaluation.comparing.compare.compare` returned.
    out : str or Path
        Folder to write into; made where it does not exist. Files of an earlier comparison in it are replaced.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OmnisinkError
        If one cannot be written.
    """
    folder = Path(out)
    contents = {
        "comparison.md": markdown(results),
        "comparison.tex": latex(results),
        "comparison.json": json.dumps(results, ensure_ascii=False, allow_nan=False, indent=1) + "\n",
    }
    with os_errors_named(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            # A text of a model can hold half a surrogate pair, which has no place in a file.
            (folder / name).write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")
        questions = folder / "questions.csv"
        with questions.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(QUESTIONS)
            for task in results["tasks"]:
                for row in task["questions_differing"]:
                    writer.writerow([cell(({"task": task["label"]} | row)[name]) for name in QUESTIONS])
    return [*(folder / name for name in contents), questions]


def _foot(results: Mapping[str, Any]) -> str:
    return (
        f"Intervals: 95%, {number(results['resamples'])} bootstrap draws of clusters. p: sign flips of whole clusters."
        f" Holm p: over {results['tests']} tests. McNemar p: exact, takes questions for independent. Detectable: the"
        f" smallest difference found with {number(results['power'], '.0%')} power at p < {results['level']:g}, before"
        " Holm's correction."
    )


def _markdown(table: Table) -> str:
    rule = [":--" if i < table.left else "--:" for i in range(len(table.heads))]
    lines = [list(map(_plain, table.heads)), rule, *(list(map(_plain, row)) for row in table.rows)]
    return "\n".join([f"## {_plain(table.title)}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _latex(table: Table) -> str:
    columns = "l" * table.left + "r" * (len(table.heads) - table.left)
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(table.title)}}}\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_escaped, table.heads)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return "".join(_LATEX.get(character, character) for character in text)
