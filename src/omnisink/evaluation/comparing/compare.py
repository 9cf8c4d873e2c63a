"""Compare the methods of one or more runs: paired differences, what they are worth, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError
from omnisink.evaluation.comparing.comparison import Comparison
from omnisink.evaluation.comparing.cost import cost
from omnisink.evaluation.comparing.curves import curves
from omnisink.evaluation.comparing.outcomes import Floats, TaskTable, tasks_of, unparsed
from omnisink.evaluation.comparing.wording import sentence, verdict
from omnisink.evaluation.comparing.yes_share import yes_share
from omnisink.evaluation.tasks.metrics import METRICS, measure
from omnisink.results.mcnemar import exact_mcnemar
from omnisink.results.power import smallest_detectable
from omnisink.results.schema import COMPARISON_FORMAT, EvaluationManifest, EvaluationRecord
from omnisink.results.statistics import SHARE, SHARES_DIFFER, Estimate, holm, mean_interval, paired_difference
from omnisink.results.wording import LEVEL, counted, percent

POWER = 0.8
#: Characters of an answer that are shown.
_LONGEST = 300


@dataclass(frozen=True)
class Drawing:
    """How intervals and permutations are drawn."""

    seed: int
    resamples: int


def compare(
    folders: Sequence[str | Path], baseline: str = "baseline", *, seed: int = 0, resamples: int = 9999
) -> Comparison:
    """Compare every method of the runs with the baseline, on the same questions.

    Parameters
    ----------
    folders : sequence of str or Path
        Runs as ``omnisink eval`` writes them, finished or not: of several tasks, or of several seeds of a task.
    baseline : str
        The method that the others are compared with.
    seed : int
        Seed of the random numbers of intervals and permutations.
    resamples : int
        How many drawings.

    Returns
    -------
    Comparison
        A dictionary in the form ``omnisink.comparison.v1``, which JSON can hold. ``"tasks"`` has for every task its
        `methods`, each with its accuracy, its share of ``"yes"`` on yes/no questions, counts and cost and, but for the
        baseline, a `paired` comparison; its `breakdowns`; its `curves`, which are the accuracies of all methods in
        groups that are numbers, such as lengths; and the `questions` that a method won, lost or failed on.
        ``"verdicts"`` has a sentence for every comparison. Shares and differences are fractions of 1.

    Raises
    ------
    OmnisinkError
        If a folder is not such a run, the runs do not fit together, none has the baseline, or SciPy or statsmodels is
        not installed.
    """
    tasks, draw = tasks_of(folders), Drawing(seed, resamples)
    for task in tasks:
        if baseline not in task.methods:
            known = ", ".join(task.methods) or "none"
            raise OmnisinkError(f"{task.label} has no answers of {baseline!r} to compare with; methods: {known}")
    made = [_task(task, baseline, draw) for task in tasks]
    pairs = [(task, row, row["paired"]) for task in made for row in task["methods"] if row["paired"] is not None]
    # One family: every test that could have been reported as the finding of this comparison.
    for (_, _, pair), corrected in zip(pairs, holm([pair["p"] for _, _, pair in pairs]), strict=True):
        pair["p_holm"] = corrected
        pair["verdict"] = verdict(pair)
    for about, row, pair in pairs:
        pair["sentence"] = sentence(about["label"], row["method"], baseline, pair)
    return Comparison(
        {
            "format": COMPARISON_FORMAT,
            "baseline": baseline,
            "seed": seed,
            "resamples": resamples,
            "level": LEVEL,
            "power": POWER,
            "tests": sum(pair["p"] is not None for _, _, pair in pairs),
            "runs": [_facts(task, run.folder.name, run.manifest) for task in tasks for run in task.runs],
            "tasks": made,
            "verdicts": [pair["sentence"] for _, _, pair in pairs],
        }
    )


def _task(task: TaskTable, baseline: str, draw: Drawing) -> dict[str, Any]:
    scores = {method: task.scores(method) for method in task.methods}
    others = [method for method in task.methods if method != baseline]
    methods = [_method(task, method, baseline, scores, draw) for method in task.methods]
    made = {
        "label": task.label,
        **{key: task.facts.get(key) for key in ("name", "title", "split", "protocol")},
        "metric": str(task.facts.get("metric") or "accuracy"),
        "score": task.runs[0].manifest.get("score"),
        "seeds": [run.manifest.get("seed") for run in task.runs],
        "questions": task.questions,
        "reached": len(task.ids),
        "missing": task.questions - len(task.ids),
        "clusters": len(set(task.clusters)),
        "methods": methods,
        "breakdowns": _breakdowns(task, baseline, others, scores, draw),
        "curves": curves(task, scores, seed=draw.seed, resamples=draw.resamples),
        "questions_differing": [row for method in others for row in _differing(task, method, baseline, scores)],
    }
    return {**made, "notes": _notes(task, baseline, made)}


def _method(
    task: TaskTable, method: str, baseline: str, scores: Mapping[str, Floats], draw: Drawing
) -> dict[str, Any]:
    own = scores[method]
    seen, values = _whole(own)
    records = task.records(method)
    errors = sum(record["error"] is not None for record in records)
    return {
        "method": method,
        "baseline": method == baseline,
        "settings": task.runs[0].manifest["methods"].get(method),
        "answered": int(seen.sum()),
        "errors": errors,
        "unparsed": sum(unparsed(record) for record in records),
        "unscored": int(sum(r["error"] is None and r["right"] is None and not unparsed(r) for r in records)),
        "retried": sum(record["attempt"] > 0 for record in records),
        **_estimate("accuracy", values, _chosen(task.clusters, seen), draw),
        "errors_as_wrong": _errors_as_wrong(task, method, own) if errors else None,
        "yes": yes_share(task, method, seed=draw.seed, resamples=draw.resamples),
        "reported": _reported(task, records),
        "by_seed": _by_seed(own[:, seen]) if len(task.runs) > 1 else None,
        "cost": cost(task, method, baseline),
        "paired": None if method == baseline else _paired(task, own, scores[baseline], draw),
    }


def _reported(task: TaskTable, records: Sequence[EvaluationRecord]) -> dict[str, float] | None:
    """Return the numbers that the benchmark itself reports, where they are more than the mean over questions."""
    metric, mean_over = task.facts.get("metric"), str(task.facts.get("mean_over") or "")
    scored = [record for record in records if record["right"] is not None]
    if metric not in METRICS or metric == "accuracy" or not scored or (metric == "group_mean" and not mean_over):
        return None
    found = measure(scored, metric, mean_over=mean_over)
    name = f"mean over {mean_over}" if metric == "group_mean" else "accuracy"
    return {name: float(found.value or 0.0), **found.extra.get("all", {})}


def _errors_as_wrong(task: TaskTable, method: str, own: Floats) -> float | None:
    """Return what the mean would be if an error were a wrong answer, for the reader to see what is at stake."""
    failed = [[run.last[method][name]["error"] is not None for name in task.ids] for run in task.runs]
    _, values = _whole(np.where(failed, 0.0, own))
    return float(values.mean()) if len(values) else None


def _paired(task: TaskTable, own: Floats, base: Floats, draw: Drawing) -> dict[str, Any]:
    """Compare on the questions that both have answered, in every seed."""
    both, gaps = _whole(own - base)
    if not both.any():
        empty = ("accuracy", "base", "difference", "low", "high", "p", "p_holm", "mcnemar_p", "detectable", "by_seed")
        counts = ("questions", "clusters", "wins", "losses", "ties")
        return dict.fromkeys(empty) | dict.fromkeys(counts, 0) | {"left_out": len(both)}
    clusters = _chosen(task.clusters, both)
    arm, plain = own[:, both].mean(0), base[:, both].mean(0)
    found = paired_difference(arm, plain, clusters, bounds=SHARES_DIFFER, seed=draw.seed, resamples=draw.resamples)
    tested = exact_mcnemar(arm, plain)
    wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
    return {
        "questions": len(gaps),
        "left_out": len(both) - len(gaps),
        "clusters": len(set(clusters)),
        "accuracy": float(arm.mean()),
        "base": float(plain.mean()),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "p_holm": None,
        "mcnemar_p": None if tested is None else tested.p,
        "wins": wins,
        "losses": losses,
        "ties": len(gaps) - wins - losses,
        "detectable": asdict(smallest_detectable(arm - plain, clusters, power=POWER, level=LEVEL)),
        "by_seed": _by_seed((own - base)[:, both]) if len(own) > 1 else None,
    }


def _breakdowns(
    task: TaskTable, baseline: str, others: Sequence[str], scores: Mapping[str, Floats], draw: Drawing
) -> list[dict[str, Any]]:
    """Return the difference in every group of questions, without tests: there are too many to be corrected for."""
    rows = []
    for (kind, group), places in task.groups().items():
        for method in others:
            both, gaps = _whole((scores[method] - scores[baseline])[:, places])
            if not both.any():
                continue
            inside = [place for place, kept in zip(places, both, strict=True) if kept]
            clusters = [task.clusters[place] for place in inside]
            rows.append(
                {
                    "kind": kind,
                    "group": group,
                    "method": method,
                    "questions": len(inside),
                    "clusters": len(set(clusters)),
                    "accuracy": float(scores[method][:, inside].mean()),
                    "base": float(scores[baseline][:, inside].mean()),
                    "changed": int(np.count_nonzero(gaps)),
                    **_estimate("difference", gaps, clusters, draw),
                }
            )
    return rows


def _differing(task: TaskTable, method: str, baseline: str, scores: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Return what a method won, lost or failed on, by question; texts are those of the first seed that differs."""
    rows = []
    gaps = scores[method] - scores[baseline]
    for place, name in enumerate(task.ids):
        column = gaps[:, place]
        pairs = [(run.last[method][name], run.last[baseline][name]) for run in task.runs]
        failed = [i for i, pair in enumerate(pairs) if any(record["error"] is not None for record in pair)]
        if not failed and (np.isnan(column).any() or column.mean() == 0):
            continue
        telling = failed[0] if failed else int(np.flatnonzero(column)[0])
        own, base = pairs[telling]
        rows.append(
            {
                "id": name,
                "cluster": str(own["cluster"]),
                "method": method,
                "outcome": "error" if failed else "win" if column.mean() > 0 else "loss",
                "seed": task.runs[telling].manifest.get("seed"),
                "gold": _said(own, "gold"),
                "base_text": _said(base, "text"),
                "text": _said(own, "text"),
            }
        )
    return rows


def _notes(task: TaskTable, baseline: str, made: Mapping[str, Any]) -> list[str]:
    """Say what a reader of the numbers must know of them."""
    notes = []
    if made["metric"] == "group_mean":
        notes.append("This benchmark reports a mean over groups; accuracy here is the mean over questions.")
    if made["missing"]:
        left = counted(made["missing"], "question")
        notes.append(f"{left} of {made['questions']:,d} missing, as not all methods have reached them yet: left out.")
    if out := task.runs[0].manifest.get("left_out"):
        notes.append(f"Not run, of all methods: {'; '.join(f'{name} ({why})' for name, why in out.items())}.")
    if idle := [m for m in task.runs[0].manifest["methods"] if m not in task.methods]:
        notes.append(f"No answers yet, in every run, of {', '.join(idle)}.")
    if said := next((row["yes"] for row in made["methods"] if row["yes"]), None):
        notes.append(f"{counted(said['questions'], 'yes/no question')}: {percent(said['right'])} have the answer yes.")
    for row in made["methods"]:
        if row["errors"]:
            wrong = percent(row["errors_as_wrong"])
            notes.append(
                f"{row['method']}: {counted(row['errors'], 'error')}, left out and not scored as wrong. Scored as"
                f" wrong, they would make accuracy {wrong} instead of {percent(row['accuracy'])}."
            )
        if row["unparsed"]:
            notes.append(
                f"{row['method']}: {counted(row['unparsed'], 'answer')} that could not be parsed, scored as wrong."
            )
        if row["unscored"]:
            notes.append(f"{row['method']}: {counted(row['unscored'], 'answer')} without a score: left out.")
        if other := _other_prompts(task, row["method"], baseline):
            notes.append(f"{row['method']}: {counted(other, 'prompt')} not the same as with {baseline}.")
    if len({tuple(row["cost"]["batch"]) for row in made["methods"]}) > 1:
        notes.append("Methods ran in batches of different sizes: their times cannot be compared.")
    return notes


def _other_prompts(task: TaskTable, method: str, baseline: str) -> int:
    key = "prompt_sha256"
    pairs = [(run.last[method][name], run.last[baseline][name]) for run in task.runs for name in task.ids]
    return sum(a.get(key) != b.get(key) for a, b in pairs if a.get(key) and b.get(key))


def _facts(task: TaskTable, folder: str, manifest: EvaluationManifest) -> dict[str, Any]:
    keys = ("started", "command", "seed", "score", "model", "versions", "task", "methods")
    return {"label": task.label, "folder": folder, **{key: manifest.get(key) for key in keys}}


def _whole(scores: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Return which questions have a score in every seed, and their means over the seeds."""
    seen = np.asarray(np.isfinite(scores).all(axis=0), dtype=np.bool_)
    return seen, scores[:, seen].mean(axis=0)


def _estimate(name: str, values: Floats, clusters: Sequence[str], draw: Drawing) -> dict[str, float | None]:
    if not len(values):
        return {name: None, "low": None, "high": None}
    bounds = SHARE if name == "accuracy" else SHARES_DIFFER
    found: Estimate = mean_interval(values, clusters, bounds=bounds, seed=draw.seed, resamples=draw.resamples)
    return {name: found.value, "low": found.low, "high": found.high}


def _by_seed(scores: Floats) -> dict[str, Any] | None:
    """Return mean and deviation over seeds of the mean over the same questions."""
    if not scores.size:
        return None
    values = scores.mean(1)
    return {"values": values.tolist(), "mean": float(values.mean()), "deviation": float(values.std(ddof=1))}


def _chosen(clusters: Sequence[str], kept: NDArray[np.bool_]) -> list[str]:
    return [cluster for cluster, keep in zip(clusters, kept, strict=True) if keep]


def _said(record: EvaluationRecord, field: Literal["gold", "text"]) -> str | None:
    value = record.get("error") if field == "text" and record["error"] is not None else record.get(field)
    text = None if value is None else str(value)
    return text if text is None or len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
