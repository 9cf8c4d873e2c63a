"""`omnisink tune`: settings of a method for a model, what they are worth, and a profile that keeps them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import method_options, options
from omnisink.cli.calibrating import check_router, refuse_search, report, run_calibration
from omnisink.cli.grouped import grouped
from omnisink.cli.media import FramesOption
from omnisink.cli.output import CHECK_FAILED, check_writable, note, print_json, working
from omnisink.cli.preflight import check_model, check_statistics, check_there
from omnisink.cli.progress import progress_bar
from omnisink.errors import OmnisinkError
from omnisink.extras import install

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.instance import Instance
    from omnisink.evaluation.tasks.task import Task
    from omnisink.evaluation.tuning.tune import Progress
    from omnisink.models.loaded import Loaded

#: The split that settings are searched on, where a task has it.
TUNE = "tune"
_OPTUNA = "optuna"
#: The tasks where none is named: of a search, and of a calibration, which needs long prompts.
_SEARCHED, _LONG_CONTEXT = "synthav", "needle"
#: What comes before the searches, as it is told.
_BEFORE = ("reading", "the baseline")


@grouped
def tune(
    model: options.ModelOption = "smolomni",
    method: method_options.MethodOption = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="A name that `omnisink tasks` lists, or a JSONL file. [default: synthav; needle with --target-skip]",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Where the task's files are; synthav makes its own.")
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for records and results.")] = TUNE,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="FILE", help="File of the profile. [default: MODEL.json in --out]"),
    ] = None,
    target_skip: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Calibrate sink-router so that this share of the key/value heads is left out, as 0.6; no search.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings that each search tries.")] = 40,
    folds: Annotated[
        int, typer.Option(min=0, help="Folds that test the search on questions it did not see; 0 tests nothing.")
    ] = 3,
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME", help="Prompts of the task. [default: the task's own]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of the task. [default: tune, if it has one]")
    ] = None,
    lengths: options.LengthsOption = None,
    only: options.OnlyOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Search on this number of questions; all are held in memory. "
            "[default: 200; 50 for each length with --target-skip]",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="Files read at a time.")] = 2,
    frames: FramesOption = None,
    seed: Annotated[int, typer.Option(min=0, max=options.LARGEST_SEED, help="Seed of everything random.")] = 0,
    loading: options.LoadingOptions = options.LOADING,
    json: options.JsonFlag = False,
) -> None:
    """Search settings for a model, and test the search on questions it did not see. Goes on where stopped.

    The method is OutRo unless --method names another; the search begins at the settings that come with the name.
    With --target-skip nothing is searched: the threshold of sink-router is read off its scores, for every length.
    """
    if target_skip is None:
        optuna = _optuna()
        check_statistics()
    from omnisink.evaluation.tasks.task import find_task
    from omnisink.results.disk import check_folder

    check_folder(out)
    if profile is not None:
        check_writable(profile)
    check_there(model, loading.download)
    found = find_task(task or (_LONG_CONTEXT if target_skip is not None else _SEARCHED))
    own = TUNE in found.splits
    split = TUNE if split is None and own else split
    settings = options.task_settings(lengths)
    found.check_data(data, protocol, split, settings)
    if limit is None:
        limit = 200 if target_skip is None else 50 * len(settings.get("lengths", (0,)))
    where = options.groups_of(only)
    reading = _questions if target_skip is None else _prompts
    read = partial(reading, found, data, protocol, split=split, limit=limit, where=where, settings=settings)
    # As in `omnisink eval`: mistyped files first, and clips last.
    instances = None if found.is_slow(data) else read()
    first = method_options.make_method(method, model, seed)
    if first is None:
        raise OmnisinkError("the baseline has no settings to tune: name a method")
    if target_skip is not None:
        check_router(first, target_skip)
    else:
        refuse_search(first)
    with working("importing"):
        from omnisink.evaluation.tuning.tune import Tuning, check_tune, tune
        from omnisink.evaluation.tuning.tuned import make_profile, sentences, write_profile
        from omnisink.media import Uniform
        from omnisink.methods.space import space_of
        from omnisink.models.facts import check_can_answer_some

    if target_skip is None:
        space_of(first)  # Refuses what cannot be searched.
    chosen = Tuning(trials, folds, seed, batch_size, threads, None if frames is None else Uniform(frames))
    loaded: Loaded | None = None
    if found.needs_model:
        check_model(model, loading.device, loading.dtype)
        loaded = options.load(model, loading)
    instances = read(model=loaded) if instances is None else instances
    if split != TUNE:
        note(
            f"these are not questions for tuning: {found.title} "
            + ("has a split for that, tune" if own else "has no split for that")
            + ". Results on the questions that settings were searched on are too good; leave them out"
        )
    check_can_answer_some(model, instances)
    facts: dict[str, Any] = {
        "versions": {**options.versions(), **({} if target_skip is not None else {"optuna": optuna})},
        "command": shlex.join(["omnisink", *sys.argv[1:]]),
        "task": found.facts(protocol, split, settings),
    }
    if target_skip is None:
        check_tune(instances, chosen, out, first, facts)
    if loaded is None:
        check_model(model, loading.device, loading.dtype)
        loaded = options.load(model, loading)
    facts["model"] = options.describe(loaded)
    if target_skip is not None:
        results = run_calibration(loaded, instances, first, target_skip, chosen)
        to = profile or str(Path(out) / f"{_file_name(model)}.{results['method']}.json")
        Path(out).mkdir(parents=True, exist_ok=True)
        write_profile(to, make_profile(loaded, results, facts))
        report(results, to, json)
        return
    with _bar() as progress:
        results = tune(loaded, instances, chosen, out, first=first, facts=facts, progress=progress)
    for question, why in results["left_out"].items():
        note(f"left out: {question}: {why}")
    to = profile or str(Path(out) / f"{_file_name(model)}.json")
    if results["settings"] is not None:
        write_profile(to, make_profile(loaded, results, facts))
        said = [_brief(results["settings"]) if results["method"] == method_options.OUTRO else _written(results)]
        said += [*sentences(results), to]
    else:
        said = sentences(results)
    if json:
        print_json(results)
    else:
        print(*said, sep="\n")
    if failed := [trial["error"] for trial in results["trials"] if trial["error"]]:
        note(
            f"{len(failed)} of {len(results['trials'])} settings were given up, as no answer was possible: {failed[0]}"
        )
    if left := results["left_out"]:
        note(f"{len(left)} of {len(instances)} questions could not be asked, and count for nothing")
        raise typer.Exit(CHECK_FAILED)


def _prompts(task: Task, data: str | None, protocol: str | None, **options: Any) -> list[Instance]:
    """Read a task's questions, and say what is remarkable about them."""
    with working(f"reading {task.title}"):
        found = task.read(data, protocol, **options)
    for line in found.remarks:
        note(line)
    return list(found.instances)


def _questions(task: Task, data: str | None, protocol: str | None, **options: Any) -> list[Instance]:
    """Read a task's questions, without those that have no wrong answer to compare the right one with."""
    read = _prompts(task, data, protocol, **options)
    kept = [one for one in read if one.can_be_compared]
    lost = [one for one in read if not one.can_be_compared]
    if not kept:
        from omnisink.evaluation.tuning.scoring import check_askable

        check_askable(lost)
    if lost:
        note(
            f"{len(lost)} of these have no two answers of which one is right, and cannot be tuned on: left out; the "
            f"first: {lost[0].id}"
        )
    return kept


def _optuna() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_OPTUNA)
    except PackageNotFoundError:
        raise OmnisinkError(
            f"the search for settings needs Optuna, which is not installed. Install with: {install('eval')}"
        ) from None


def _file_name(model: str) -> str:
    """Name a file after a model, whether it is a name, a name on the Hub, a folder or a GGUF file."""
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).resolve().name if Path(model).exists() else model).strip("-.")
        or "model"
    )


def _written(results: dict[str, Any]) -> str:
    """Write the settings of any method."""
    said = ", ".join(f"{name} {value}" for name, value in results["settings"].items())
    return f"{results['method']}: {said}"


def _brief(settings: dict[str, Any]) -> str:
    """Write what was searched."""
    layers = settings["detect_layers"]
    from omnisink.methods.outro_space import AWAY, direction_of

    way = "away from" if direction_of(settings) == AWAY else "toward"
    rotated = f"gamma {settings['gamma']:g} ({way} the sink's value), tau {settings['tau']:g}"
    said = [rotated] if settings["rotate"] else ["no rotation"]
    if settings["gamma"] == 0 and not settings["relax"]:
        return "OutRo: off"
    if layers:
        said.append(f"layers {layers[0]} to {layers[-1]}")
    one = settings["relax_layers"]
    relaxed = f"relaxation at layer {one[0]}" if one else "relaxation at the paper's layers"
    return f"OutRo: {', '.join([*said, relaxed if settings['relax'] else 'no relaxation'])}"


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show how far the reading, the baseline and the searches are; searches share a bar, as each takes as long."""
    with progress_bar() as tell:
        yield lambda what, done, total: tell(done, total, what, what if what in _BEFORE else "searching")
