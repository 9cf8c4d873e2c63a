"""Folders of runs as the runner writes them, made from scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnisink.results.records import MANIFEST, RECORDS

#: Enough drawings where the number does not matter.
FEW = 499


def manifest(methods: Sequence[str], questions: int, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a manifest; what stands in `changes` under ``task`` or ``model`` replaces single facts of theirs."""
    task = {
        "name": "synthav",
        "title": "SynthAV",
        "split": "test",
        "protocol": "lettered",
        "metric": "accuracy",
        "questions": questions,
        "sha256": "ab" * 32,
    }
    model = {"name": "smolomni", "class": "SmolOmni", "dtype": "float32", "device": "cpu"}
    return {
        "format": "omnisink.eval.v1",
        "started": f"2026-11-25T10:0{seed}:00+00:00",
        "command": f"omnisink eval --seed {seed}",
        "versions": {"omnisink": "0.0"},
        "methods": {name: None if name == "baseline" else {"name": "OutRo", "gamma": 0.1} for name in methods},
        "score": "generate",
        "seed": seed,
        **changes,
        "task": task | changes.get("task", {}),
        "model": model | changes.get("model", {}),
    }


def record(name: str, method: str, right: Any = True, **changes: Any) -> dict[str, Any]:
    """Return the record of one answer, B where it is right."""
    said = None if right is None else "B" if right else "A"
    return {
        "id": name,
        "method": method,
        "attempt": 0,
        "cluster": f"clip-{name}",
        "groups": {},
        "prompt_sha256": f"{name}",
        "prompt_tokens": 300,
        "new_tokens": 3,
        "text": said,
        "parsed": said,
        "gold": "B",
        "right": right,
        "loss": None,
        "error": None,
        "seconds": 0.5,
        "batch": 8,
        "memory_mb": 800.0,
    } | changes


def failed(name: str, method: str, **changes: Any) -> dict[str, Any]:
    """Return the record of an error."""
    return record(name, method, None, error="the video could not be read", **changes)


def write(folder: Path, about: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Path:
    """Write a run."""
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps(about), encoding="utf-8")
    lines = [json.dumps(row) + "\n" for row in records]
    (folder / RECORDS).write_text("".join(lines), encoding="utf-8")
    return folder


def write_scores(
    folder: Path,
    scores: Mapping[str, Sequence[Any]],
    clusters: Sequence[Any] | None = None,
    *,
    seed: int = 0,
    each: Mapping[str, Mapping[str, Any]] | None = None,
    groups: Sequence[Mapping[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """Write a run with these scores of every method; None is an error. `each` changes all records of a method."""
    count = len(next(iter(scores.values())))
    records = []
    for i in range(count):
        more: dict[str, Any] = {"cluster": f"clip-{i if clusters is None else clusters[i]}"}
        more |= {"groups": groups[i]} if groups else {}
        for method, column in scores.items():
            make = failed if column[i] is None else record
            given = () if column[i] is None else (column[i],)
            records.append(make(f"q{i}", method, *given, **more, **(each or {}).get(method, {})))
    return write(folder, manifest(list(scores), count, seed, **changes), records)


def correlated(
    random: np.random.Generator, clusters: int, gain: float = 0.0, size: int = 3, differing: float = 0.25
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw scores of two arms, (N,) each, and clusters: questions of a clip tend to be changed together.

    A share `differing` of clips is moved, each in one direction, with all of its questions that can move. `gain` is
    the expected difference.
    """
    place = np.repeat(np.arange(clusters), size)
    easy = np.repeat(random.beta(2, 2, clusters), size)
    base = random.random(len(place)) < easy
    moved = np.repeat(random.random(clusters) < differing, size)
    # Half of the questions can rise and half can fall, so that the sides are alike where there is no gain.
    up = np.repeat(random.random(clusters) < 0.5 + gain / differing, size)
    arm = np.where(moved, np.where(up, True, False), base)
    return arm.astype(float), base.astype(float), place
