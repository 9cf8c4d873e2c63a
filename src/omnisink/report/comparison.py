"""Write a comparison of methods: a page like that of a study, and a folder of charts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.report.write import check_libraries, put

if TYPE_CHECKING:
    from omnisink.report.sections import Section


def write_comparison(results: Mapping[str, Any], out: str | Path, *, charts: bool = True) -> Path:
    """Write a comparison as a page that opens anywhere, and every chart as picture and table.

    Parameters
    ----------
    results : mapping
        A comparison in the form ``omnisink.comparison.v1``. Strings may be anything: they are shown, never
        interpreted.
    out : str or Path
        Folder to write into; made where it does not exist. Files of an earlier page in it are replaced.
    charts : bool
        Write the charts as files too; without them the page, which needs none of them, links none.

    Returns
    -------
    Path
        ``out/page.html``. Beside it stand ``out/charts/NAME.png``, ``NAME.svg``, ``NAME.pdf`` and ``NAME.csv`` for
        every chart.

    Raises
    ------
    OmnisinkError
        If the charting libraries are not installed, or these are not the results of a comparison.
    """
    check_libraries()
    if not isinstance(results.get("tasks"), list | tuple) or "baseline" not in results:
        raise OmnisinkError('these are not the results of a comparison: they have no "tasks" or no "baseline"')
    # Imported here, because these modules need the libraries that were just looked for.
    from omnisink.report.cleaning import clean
    from omnisink.report.page import fill

    results = clean(results)
    sections = _sections(results)
    html = fill("comparison.html.jinja", sections, charts, **_words(results))
    return put(Path(out), sections, html, charts)


def _sections(results: Mapping[str, Any]) -> list[Section]:
    from omnisink.evaluation.comparing.summary import findings
    from omnisink.report.charts import comparison as charts
    from omnisink.report.charts.curves import curves
    from omnisink.report.charts.yes_share import yes
    from omnisink.report.sections import Section

    many = len(results["tasks"]) > 1
    notes = [f"{t['label']}: {note}" if many else note for t in results["tasks"] for note in t["notes"]]
    made = [
        Section(
            "differences",
            "Differences",
            f"Does a method differ from “{results['baseline']}”?",
            "The same questions with and without each method. Tests are corrected for their number, over all tasks and"
            " methods here.",
            findings(results),
            charts.differences(results),
        ),
        Section(
            "scores",
            "Scores",
            "What does every method score?",
            "Errors are not answers: they are counted and left out. An answer that could not be parsed is wrong.",
            notes,
            charts.levels(results),
        ),
        Section(
            "yes",
            "Yes or no",
            "How often does every method say yes?",
            "On questions whose answer is yes or no, a push toward one answer looks like a gain or a loss.",
            [],
            yes(results),
        ),
        Section(
            "over-seeds",
            "Seeds",
            "How much do seeds differ?",
            "The same run with other seeds.",
            [],
            charts.seeds(results),
        ),
        Section(
            "wins",
            "Questions",
            "Which questions change?",
            "A difference of nothing can hide many questions that change both ways.",
            [],
            charts.wins(results),
        ),
        Section(
            "groups",
            "Groups",
            "Where does a method help?",
            "To look at, not to conclude from: with many groups, some intervals leave zero out by chance.",
            charts.still_groups(results),
            charts.breakdowns(results),
        ),
        Section(
            "curves",
            "Curves",
            "How does accuracy change with length?",
            "Kinds of groups whose names are numbers, such as the lengths of prompts.",
            [],
            curves(results),
        ),
        Section(
            "costs",
            "Cost",
            "What does it cost?",
            "Time, memory and tokens, next to the gain.",
            [],
            charts.spent(results),
        ),
    ]
    # What a reader must know is shown even where nothing can be drawn.
    return [section for section in made if section.figures or section.readings]


def _words(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the head of the page shows."""
    from omnisink.results.wording import interval, listed, number

    runs = results.get("runs") or []
    tasks = results["tasks"]
    models = list(dict.fromkeys(str(_mapping(run.get("model")).get("name") or "") for run in runs))
    sizes = [f"{task['label']}: {number(task['reached'])} of {number(task['questions'])}" for task in tasks]
    versions = [_mapping(run.get("versions")).get("omnisink") for run in runs]
    base = [(task["label"], row) for task in tasks for row in task["methods"] if row["baseline"]]
    summary = {
        "model": ", ".join(filter(None, models)),
        "questions": "; ".join(sizes),
        "seeds": "; ".join(f"{task['label']}: {', '.join(map(str, task['seeds']))}" for task in tasks),
        "drawn": f"{number(results.get('resamples'))} times, seed {number(results.get('seed'))}",
    }
    return {
        "name": listed([task["label"] for task in tasks]),
        "version": next(filter(None, versions), ""),
        "baseline": results["baseline"],
        "level": number(results.get("level")),
        "levels": [(label, interval(row["accuracy"], row["low"], row["high"], ".1%")) for label, row in base],
        "summary": [(key, text) for key, text in summary.items() if text],
        "runs": [(str(run.get("folder")), _facts(run)) for run in runs],
    }


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a run says of itself, as pairs to show."""
    kept = {key: value for key, value in run.items() if key != "folder" and value not in (None, "", {})}
    return [(key, v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)) for key, v in kept.items()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
