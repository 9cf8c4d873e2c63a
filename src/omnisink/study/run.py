"""Run a study: item by item, unit by unit, each written down before the next, so that a kill costs one unit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from omnisink.decoder.anatomy import read_anatomy
from omnisink.errors import OmnisinkError, UnsupportedModelError, reason
from omnisink.models.loaded import Loaded
from omnisink.questions.items import Item
from omnisink.results.checking import typed
from omnisink.results.disk import atomic_write
from omnisink.results.records import Records, check_start, read_records, start
from omnisink.results.schema import STUDY_FORMAT, STUDY_KEY, Base, End, StudyManifest, StudyRecord
from omnisink.study.calibration import Calibration, calibrate
from omnisink.study.describe_item import describe_item
from omnisink.study.gather import BASE, gather
from omnisink.study.item_measurements import ItemMeasurements
from omnisink.study.item_runner import ItemRunner, item_runner
from omnisink.study.plan import Plan
from omnisink.study.questions import QUESTIONS
from omnisink.study.results import StudyResults
from omnisink.study.unit import Unit

#: Unit that says that all of an item is done, and how long it took.
END = ("base", "end")
RESULTS = "results.json"

#: Called with how much of the work is done, from 0 to 1, and what is being done.
Progress = Callable[[float, str], None]


def run_study(
    loaded: Loaded,
    items: Sequence[Item],
    plan: Plan,
    out: str | Path,
    *,
    facts: Mapping[str, Any],
    progress: Progress | None = None,
) -> StudyResults:
    """Ask the questions of a plan about every item, or go on where an earlier run was stopped.

    Parameters
    ----------
    loaded : Loaded
        The model.
    items : sequence of Item
        The questions and passages.
    plan : Plan
        The questions and settings.
    out : str or Path
        Folder of the run: ``manifest.json``, ``records.jsonl``, ``calibration.npz``, ``recording.npz`` and ``.json``
        of the first item, and ``results.json`` at the end.
    facts : mapping
        Facts of the run for the results: ``model``, ``versions``, ``data``, ``command``, ``quick``.
    progress : callable, optional
        See `Progress`.

    Returns
    -------
    StudyResults
        A dictionary, as ``results.json`` has them (format ``omnisink.study.v1``).

    Raises
    ------
    OmnisinkError
        If there is no item, the folder holds another run, a method does not fit the model, or no item can be run. An
        item that cannot be run is left out, and named with the reason under ``run.failed``; the next run tries it
        again.
    """
    if not items:
        raise OmnisinkError("a study needs one item at least")
    folder = Path(out)
    for method in plan.methods.values():
        method.check(read_anatomy(loaded.model))
    tell = progress or (lambda share, what: None)
    begun = start(folder, _manifest(plan, items, facts), ignore=("started", "command"))
    manifest = typed(begun, StudyManifest, f"{folder}: its manifest cannot be used")
    with Records(folder, STUDY_KEY, StudyRecord) as records:
        failed: dict[str, str] = {}
        calibration = _calibration(loaded, items[: plan.calibration], folder, tell)
        costs = [_cost(plan, i) for i in range(len(items))]
        for index, item in enumerate(items):
            if not records.done(item.id, *END):
                share = partial(_share, tell, costs, index)
                why = _run_item(loaded, item, index, plan, calibration, records, share)
                if why is not None:
                    failed[item.id] = f"{_file_of(item)}{why}"
        tell(1.0, "results")
    whole = [item for item in items if item.id not in failed]
    if not whole:
        raise OmnisinkError(f"no item could be run. The first: {next(iter(failed.values()))}")
    # Of an item that failed halfway, some units are there, and others are not: none of them counts.
    found = [record for record in read_records(folder, STUDY_KEY, StudyRecord) if record["item"] not in failed]
    with item_runner(loaded, whole[0]) as runner:
        measurements = ItemMeasurements(runner, calibration.dimension)
        measurements.recording.save(folder / "recording")
        example = describe_item(measurements)
    run = {**_about_run(manifest, facts, whole, found), "failed": failed}
    try:
        results = gather(found, plan, calibration, example, run)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise OmnisinkError(
            f"{folder}: its records do not fit together, as where they were changed by hand: {reason(error)}"
        ) from error
    atomic_write(folder / RESULTS, (json.dumps(results, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return results


def _run_item(
    loaded: Loaded,
    item: Item,
    index: int,
    plan: Plan,
    calibration: Calibration,
    records: Records,
    tell: Callable[[float], None],
) -> str | None:
    """Run what is left to do of an item; return why that cannot be done, and None where it was."""
    begin = time.perf_counter()
    expected = _cost(plan, index)
    with closing(_measured(loaded, item, index, plan, calibration, records)) as measured:
        for number in count():
            try:
                record = next(measured, None)
            except UnsupportedModelError:
                raise  # It says of every item what it says of this one.
            except Exception as error:
                return reason(error)
            if record is None:
                break
            if record:
                records.append(record)  # Outside: what the disk refuses to take is not a fault of the item.
            tell(min(1.0, number / expected))
    question, name = END
    end: End = {"seconds": round(time.perf_counter() - begin, 3)}
    records.append({"item": item.id, "question": question, "unit": name, **end})
    return None


def _measured(
    loaded: Loaded, item: Item, index: int, plan: Plan, calibration: Calibration, records: Records
) -> Generator[dict[str, Any], None, None]:
    """Yield the record of every unit of an item; an empty one where it is there already."""
    with item_runner(loaded, item) as runner:
        measurements = ItemMeasurements(runner, calibration.dimension)
        for question, unit in units(measurements, plan, calibration, index):
            key = {"item": item.id, "question": question, "unit": unit.name}
            made = {} if records.done(*key.values()) else {**key, **unit.run()}
            if not _finite(made):
                raise OmnisinkError(
                    f"{question}, {unit.name}: a measurement is not a finite number: the model's states "
                    "overflow, or its weights are damaged"
                )
            yield made


def units(
    measurements: ItemMeasurements, plan: Plan, calibration: Calibration, index: int
) -> Generator[tuple[str, Unit], None, None]:
    """Yield every unit of work on one item, with its question: the baseline's first, then those of the plan."""
    question, name = BASE
    yield question, Unit(name, partial(_base, measurements.runner))
    for question, asked in QUESTIONS.items():
        if question in plan.questions:
            for unit in asked.units(measurements, plan, calibration, index):
                yield question, unit


def _base(runner: ItemRunner) -> Base:
    return {**runner.base.record(), "cluster": runner.item.cluster, "tokens": runner.length}


def _finite(value: Any) -> bool:
    """Whether all numbers of a record are finite."""
    if isinstance(value, dict | list | tuple):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _file_of(item: Item) -> str:
    """Name the file that an item is about, for an error that may not name it."""
    about = item.video or item.image or item.audio
    return f"{about.name}: " if about else ""


def _calibration(loaded: Loaded, items: Sequence[Item], folder: Path, tell: Progress) -> Calibration:
    path = folder / "calibration.npz"
    if path.exists():
        return Calibration.load(path)
    made = calibrate(loaded, items, lambda item: tell(0.0, "calibrating"))
    made.save(path)
    return made


def _share(tell: Progress, costs: Sequence[float], index: int, part: float) -> None:
    """Report how much is done when `part` of one item is."""
    tell((sum(costs[:index]) + part * costs[index]) / sum(costs), f"item {index + 1} of {len(costs)}")


def _cost(plan: Plan, index: int) -> float:
    """Return roughly how many runs an item takes; it serves the time that is left, nothing else."""
    return 3.0 + sum(QUESTIONS[name].cost(plan, index) for name in plan.questions)


def check_study(out: str | Path, plan: Plan, items: Sequence[Item], facts: Mapping[str, Any]) -> None:
    """Refuse what `run_study` would refuse, as far as that is known without the model; nothing is written."""
    if not items:
        raise OmnisinkError("a study needs one item at least")
    check_start(out, _manifest(plan, items, facts), ignore=("started", "command", "model"))


def _manifest(plan: Plan, items: Sequence[Item], facts: Mapping[str, Any]) -> StudyManifest:
    return {
        "format": STUDY_FORMAT,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": facts.get("command"),
        "model": facts.get("model"),
        "versions": facts.get("versions"),
        "data": facts.get("data"),
        "items": [item.id for item in items],
        "plan": plan.to_dict(),
    }


def _about_run(
    manifest: StudyManifest, facts: Mapping[str, Any], items: Sequence[Item], records: Sequence[StudyRecord]
) -> dict[str, Any]:
    settings = {k: v for k, v in manifest["plan"].items() if k not in ("questions", "seed")}
    return {
        "model": facts.get("model"),
        "versions": facts.get("versions"),
        "data": {**(facts.get("data") or {}), "used": len(items)},
        "settings": settings,
        "seed": manifest["plan"]["seed"],
        "questions": manifest["plan"]["questions"],
        "command": manifest.get("command"),
        "started": manifest.get("started"),
        "seconds": round(sum(r["seconds"] for r in records if (r["question"], r["unit"]) == END), 1),
        "quick": bool(facts.get("quick")),
    }
