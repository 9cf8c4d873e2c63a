"""Runs of a benchmark as aligned tables: what every method scored on the same questions, in every seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.parts import read_parts
from omnisink.evaluation.tasks.metrics import in_order
from omnisink.results.checking import typed
from omnisink.results.records import read_manifest
from omnisink.results.schema import EVALUATION_FORMAT, EvaluationManifest, EvaluationRecord, TaskFacts

#: What seeds of one task may differ in.
_FREE = ("seed", "started", "command")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RunTable:
    """One folder of a run: its manifest, and the last attempt at every question.

    Attributes
    ----------
    folder : Path
        Where it was read.
    manifest : mapping
        What was run.
    last : mapping of str to mapping of str to record
        For every method that has answered anything, in the order of the manifest: records by the ids of questions.
    """

    folder: Path
    manifest: EvaluationManifest
    last: Mapping[str, Mapping[str, EvaluationRecord]]

    @property
    def key(self) -> tuple[str, ...]:
        """What distinguishes tasks: name, split, protocol, way of scoring, model."""
        task = self.manifest["task"]
        parts = (task["name"], task.get("split"), task.get("protocol"), self.manifest.get("score"))
        return (*(str(part or "") for part in parts), str(_mapping(self.manifest.get("model")).get("name") or ""))


@dataclass(frozen=True)
class TaskTable:
    """One task, as one model answered it in one or more seeds.

    Attributes
    ----------
    label : str
        Its title, with what distinguishes it from other tasks of the comparison.
    runs : tuple of RunTable
        One a seed; alike in all but their seeds.
    """

    label: str
    runs: tuple[RunTable, ...]

    @property
    def facts(self) -> TaskFacts:
        """What the manifests say of the task."""
        return self.runs[0].manifest["task"]

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Methods that have answered something in every run."""
        return tuple(m for m in self.runs[0].last if all(m in run.last for run in self.runs))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Questions that every method has reached in every run, in the order in which they were asked."""
        tables = [run.last[method] for run in self.runs for method in self.methods]
        return tuple(name for name in tables[0] if all(name in table for table in tables)) if tables else ()

    @cached_property
    def questions(self) -> int:
        """How many questions the task has; never fewer than were seen."""
        seen = {name for run in self.runs for table in run.last.values() for name in table}
        return max(int(self.facts.get("questions") or 0), len(seen))

    @cached_property
    def clusters(self) -> list[str]:
        """The cluster of each of the `ids`."""
        first = self.runs[0].last[self.methods[0]] if self.methods else {}
        return [str(first[name]["cluster"]) for name in self.ids]

    def scores(self, method: str) -> Floats:
        """Return the scores of a method, (seeds, questions), NaN where there was an error or no right answer."""
        table = [[score(run.last[method][name]) for name in self.ids] for run in self.runs]
        return np.array(table, dtype=np.float64).reshape(len(self.runs), len(self.ids))

    def records(self, method: str) -> list[EvaluationRecord]:
        """Return the last attempts of a method in all runs, those at questions that others have not reached too."""
        return [record for run in self.runs for record in run.last[method].values()]

    def groups(self) -> dict[tuple[str, str], list[int]]:
        """Return the places of questions in `ids`, by kind and name of the groups that they are in, names sorted."""
        found: dict[tuple[str, str], list[int]] = {}
        first = self.runs[0].last[self.methods[0]] if self.methods else {}
        for place, name in enumerate(self.ids):
            for kind, members in _mapping(first[name].get("groups")).items():
                for member in [members] if isinstance(members, str) else members:
                    found.setdefault((kind, str(member)), []).append(place)
        kinds = list(dict.fromkeys(kind for kind, _ in found))
        return dict(sorted(found.items(), key=lambda item: (kinds.index(item[0][0]), in_order(item[0][1]))))


def score(record: EvaluationRecord) -> float:
    """Return what an answer is worth, from 0 to 1.

    An answer that could not be parsed is worth nothing. An error is not an answer: it is NaN, as is an
    answer that nobody judged.
    """
    right = record["right"]
    if record["error"] is not None:
        return float("nan")
    if right is None:
        return 0.0 if unparsed(record) else float("nan")
    return float(right)


def unparsed(record: EvaluationRecord) -> bool:
    """Return whether there was an answer that could not be parsed."""
    return record["error"] is None and "parsed" in record and record["parsed"] is None


def read_run(folder: str | Path) -> RunTable:
    """Read a run, also while it goes on.

    Parameters
    ----------
    folder : str or Path
        The folder that ``omnisink eval`` wrote.

    Returns
    -------
    RunTable
        With the last attempt at every question.

    Raises
    ------
    OmnisinkError
        If it does not hold the run of a benchmark, nothing was answered yet, or a record is not one of such a run.
    """
    folder = Path(folder)
    found = read_manifest(folder)
    if found.get("format") != EVALUATION_FORMAT:
        raise OmnisinkError(
            f"{folder} is not the run of a benchmark: its format is {found.get('format')!r}, not {EVALUATION_FORMAT}"
        )
    if not _mapping(found.get("task")).get("name") or not isinstance(found.get("methods"), Mapping):
        raise OmnisinkError(f"{folder}: its manifest does not say which task was asked with which methods")
    manifest = typed(found, EvaluationManifest, f"{folder}: its manifest cannot be used")
    tables: dict[str, dict[str, EvaluationRecord]] = {method: {} for method in manifest["methods"]}
    for number, record in enumerate(read_parts(folder), 1):
        if wrong := _take(record, tables):
            raise OmnisinkError(f"{folder}, record {number} cannot be used: {wrong}")
    if not any(tables.values()):
        raise OmnisinkError(f"{folder}: no question has been answered yet")
    return RunTable(folder, manifest, {method: table for method, table in tables.items() if table})


def tasks_of(folders: Sequence[str | Path]) -> list[TaskTable]:
    """Read runs, and put those together that are seeds of one task.

    Raises
    ------
    OmnisinkError
        As `read_run`; and if two runs are of one task and model but differ in more than the seed, or in nothing.
    """
    if not folders:
        raise OmnisinkError("give at least one folder of a run")
    together: dict[tuple[str, ...], list[RunTable]] = {}
    for run in map(read_run, folders):
        for other in together.setdefault(run.key, []):
            _check_seeds(other, run)
        together[run.key].append(run)
    labels = _labels([runs[0] for runs in together.values()])
    return [
        TaskTable(label, tuple(sorted(runs, key=lambda run: str(run.manifest.get("seed")).zfill(20))))
        for label, runs in zip(labels, together.values(), strict=True)
    ]


def _take(record: EvaluationRecord, tables: Mapping[str, dict[str, EvaluationRecord]]) -> str | None:
    """Put a record into the table of its method, unless a later attempt is there; return what is wrong with it."""
    name, method = record["id"], record["method"]
    if method not in tables:
        return f"method {method!r} is not in the manifest"
    if record["error"] is not None and record["right"] is not None:
        return "it has both an error and a score"
    there = tables[method].get(name)
    if there is None or there["attempt"] < record["attempt"]:
        tables[method][name] = record
    return None


def _check_seeds(first: RunTable, second: RunTable) -> None:
    """Refuse two runs that are neither two tasks nor two seeds of one."""
    what = f"{first.folder} and {second.folder} are of the same task and model"
    differ = [
        key
        for key in dict.fromkeys([*first.manifest, *second.manifest])
        if key not in _FREE and _settled(first.manifest.get(key)) != _settled(second.manifest.get(key))
    ]
    if differ:
        raise OmnisinkError(f"{what}, but differ in {', '.join(differ)}: they are not seeds of one run; compare one")
    if first.manifest.get("seed") == second.manifest.get("seed"):
        raise OmnisinkError(f"{what}, and of the same seed: that is one run twice; give one")


def _settled(value: Any) -> str:
    """Write a part of a manifest without what seeds may differ in: seeds of methods, and where the model ran."""
    return json.dumps(_without(value, ("seed", "device")), sort_keys=True)


def _without(value: Any, names: Sequence[str]) -> Any:
    """Leave entries out of mappings, however deep they stand: the methods of a composition are in a list."""
    if isinstance(value, Mapping):
        return {key: _without(one, names) for key, one in value.items() if key not in names}
    return [_without(one, names) for one in value] if isinstance(value, list | tuple) else value


def _labels(runs: Sequence[RunTable]) -> list[str]:
    """Name every task by its title, and by what distinguishes it from others of that title."""
    titles = [str(run.manifest["task"].get("title") or run.manifest["task"]["name"]) for run in runs]
    labels = []
    for title, run in zip(titles, runs, strict=True):
        alike = [other.key for other, name in zip(runs, titles, strict=True) if name == title]
        parts = [part for i, part in enumerate(run.key) if len({key[i] for key in alike}) > 1]
        labels.append(", ".join([title, *filter(None, parts)]))
    return labels


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
