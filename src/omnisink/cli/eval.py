"""`omnisink eval`: a benchmark under several methods, with records that survive a kill, and a paired comparison."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import method_options, options
from omnisink.cli.compare import show_comparison
from omnisink.cli.grouped import grouped
from omnisink.cli.media import FramesOption, warnings_noted
from omnisink.cli.output import CHECK_FAILED, note, print_json, working
from omnisink.cli.preflight import check_model, check_statistics, check_there
from omnisink.cli.progress import progress_bar
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.evaluation.running.parts import Rank
    from omnisink.evaluation.running.run import Progress
    from omnisink.evaluation.tasks.instance import Instance
    from omnisink.evaluation.tasks.task import Task
    from omnisink.models.loaded import Loaded

AUTO = "auto"
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class QuestionOptions:
    """Which questions of which task are asked."""

    task: Annotated[
        str, typer.Option("--task", "-t", metavar="TASK", help="A name that `omnisink tasks` lists, or a JSONL file.")
    ] = "synthav"
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Where the task's files are; synthav makes its own.")
    ] = None
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME", help="How questions are put and answers read. [default: the task's]")
    ] = None
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Split of the task. [default: its own]")] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Ask this number of questions only.")] = None
    lengths: options.LengthsOption = None
    only: options.OnlyOption = None
    allow_missing: options.AllowMissingFlag = False


@dataclass(frozen=True)
class RunningOptions:
    """How the questions are asked: in which batches, and by which processes."""

    batch_size: Annotated[
        str, typer.Option(metavar="N", help="Questions at once; auto looks for a size. Halved when memory runs out.")
    ] = AUTO
    threads: Annotated[int, typer.Option(min=1, help="Files read at a time.")] = 2
    frames: FramesOption = None
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local: this process, or the ranks of torchrun; or ray: a cluster.")
    ] = "local"
    workers: Annotated[int | None, typer.Option(min=1, help="Models at once, with --engine ray.")] = None
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask again what ended in an error.")] = False
    share: Annotated[
        bool,
        typer.Option(
            "--share/--no-share",
            help="Share towers and first layers among the methods: same answers, sooner; few batches are timed.",
        ),
    ] = True


#: The groups with nothing said.
QUESTIONS, RUNNING = QuestionOptions(), RunningOptions()


@grouped
def evaluate(
    model: options.ModelOption = "smolomni",
    questions: QuestionOptions = QUESTIONS,
    methods: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="As baseline,outro,outro:gamma=-0.3,outro+avcd, which attaches both; all: every method that model "
            "and task admit in its default setting.",
        ),
    ] = "baseline,outro,outro:rotate,outro:relax,outro:away",
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="Folder of the run.")] = "run",
    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls",
            help="Beside a contrastive method, run the baseline and the same cut of tokens with no contrast.",
        ),
    ] = True,
    score: Annotated[
        str, typer.Option(metavar="HOW", help="generate, or likelihood: the likeliest answer, in one pass.")
    ] = "generate",
    gamma: method_options.GammaOption = None,
    tau: method_options.TauOption = None,
    profile: method_options.ProfileOption = None,
    running: RunningOptions = RUNNING,
    compared: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Print and write the comparison at the end.")
    ] = True,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Also write the comparison's page.")] = True,
    seed: Annotated[int, typer.Option(min=0, max=options.LARGEST_SEED, help="Seed of everything random.")] = 0,
    loading: options.LoadingOptions = options.LOADING,
    json: options.JsonFlag = False,
) -> None:
    """Run a benchmark under several methods and compare them. Goes on where it was stopped."""
    size = _batch_size(running.batch_size)
    if running.engine not in ENGINES:
        raise OmnisinkError(f"--engine takes {' or '.join(ENGINES)}, got {running.engine!r}")
    rank, device = _place(loading.device)
    loading = replace(loading, device=device)
    if compared:
        check_statistics()
    from omnisink.evaluation.tasks.task import find_task
    from omnisink.results.disk import check_folder
    from omnisink.results.reading import read_whole

    check_folder(out)
    check_there(model, loading.download)
    if profile is not None:
        read_whole(profile)
    found, data = find_task(questions.task), questions.data
    protocol, split = questions.protocol, questions.split
    settings = options.task_settings(questions.lengths)
    found.check_data(data, protocol, split, settings)
    read = partial(_questions, found, data, protocol, split=split, limit=questions.limit, settings=settings)
    read = partial(read, where=options.groups_of(questions.only), allow_missing=questions.allow_missing)
    # A mistyped file costs no import of PyTorch; clips are opened or rendered only when nothing else is wrong.
    instances = None if found.is_slow(data) else read()
    method_options.refuse_outro_options([methods], gamma=gamma, tau=tau)
    starts = method_options.starts_of(methods, model, gamma, tau, profile)
    with working("importing"):
        from omnisink.evaluation.running.line_up import line_up, names_all
        from omnisink.evaluation.running.parts import failures, whole
        from omnisink.evaluation.running.run import Settings, check_run, run
        from omnisink.media import Uniform
        from omnisink.methods.names import BASELINE
        from omnisink.models.facts import check_can_answer_some

    frames = None if running.frames is None else Uniform(running.frames)
    line = partial(line_up, methods, starts, seed, controls=controls)
    needs_model = found.needs_model or names_all(methods)
    # Mistyped names cost no model; what `all` stands for, only the model says.
    made = None if names_all(methods) else line()
    chosen = Settings(
        {} if made is None else made.methods,
        score=score,
        batch_size=size,
        threads=running.threads,
        retry_errors=running.retry_errors,
        frames=frames,
        share=running.share,
    )
    facts = {
        "versions": options.versions(),
        "command": shlex.join(["omnisink", *sys.argv[1:]]),
        "task": found.facts(protocol, split, settings),
        "seed": seed,
    }
    layers = [layer for start in starts for layer in getattr(start, "detect_layers", None) or ()]
    loaded: Loaded | None = None
    if needs_model:
        check_model(model, loading.device, loading.dtype, layers, f"the profile {profile}")
        here = loading if running.engine == "local" else replace(loading, device=None)
        loaded = options.load(model, here)
    instances = read(model=loaded) if instances is None else instances
    check_can_answer_some(model, instances)
    if made is None:
        with working("trying the methods"):
            made = line(loaded=loaded, instances=instances, frames=frames)
        facts["left_out"] = made.left_out
        if rank.first and made.left_out:
            note(made.sentence())
    chosen = replace(chosen, methods=made.methods)
    check_run(out, instances, chosen, facts)
    if running.engine == "ray":
        from omnisink.evaluation.running.engine_ray import run_on_ray

        loaded = None  # The workers have models of their own.
        asked = {"name": model, **loading.for_loading()}
        facts["model"] = {"name": model, "dtype": loading.dtype, "device": device, "attention": loading.attn}
        with _bar() as progress:
            run_on_ray(asked, instances, chosen, out, workers=running.workers, facts=facts, progress=progress)
    else:
        if loaded is None:
            check_model(model, loading.device, loading.dtype, layers, f"the profile {profile}")
            loaded = options.load(model, loading)
        for start in starts:
            method_options.check_profile(start, loaded)
        facts["model"] = options.describe(loaded)
        with _bar() as progress, warnings_noted(several=True):
            run(loaded, instances, chosen, out, facts=facts, rank=rank, progress=progress if rank.first else None)
    done = whole(out, len(instances) * len(chosen.methods))
    if not done:
        note(f"rank {rank.rank} of {rank.world} has done its share")
    elif compared:
        against = BASELINE if BASELINE in chosen.methods else next(iter(chosen.methods))
        show_comparison([out], baseline=against, seed=seed, page=page, json=json)
    else:
        note(f"records are in {out}; compare the methods with: omnisink compare {shlex.quote(out)}")
    failed = failures(out) if rank.world == 1 or json else []
    if json and rank.first and not (compared and done):
        print_json({"run": out, "questions": len(instances), "methods": list(chosen.methods), "errors": len(failed)})
    # A rank that leaves with another status than 0 would have torchrun end the others.
    if rank.world == 1 and failed:
        said = f"{failed[0]['method']} on {failed[0]['id']}: {failed[0]['error']}"
        note(f"{len(failed)} of {len(instances) * len(chosen.methods)} answers are errors, and not scored. {said}")
        raise typer.Exit(CHECK_FAILED)


def _place(device: str | None) -> tuple[Rank, str | None]:
    """Return this process's rank, which ends with its launcher, and its device."""
    from omnisink.evaluation.running.parts import Rank, end_with_launcher

    rank = Rank.of_environment()
    if rank.world > 1:
        end_with_launcher()
    return rank, rank.device(device)


def _questions(task: Task, data: str | None, protocol: str | None, **options: Any) -> list[Instance]:
    """Read a task's questions, and say how far that is where clips have to be rendered or looked at first."""
    with working(f"reading {task.title}") as say:
        found = task.read(
            data, protocol, progress=lambda done, total, what: say(f"{done} of {total} {what}"), **options
        )
    for line in found.remarks:
        note(line)
    return found.instances


def _batch_size(given: str) -> int | None:
    if given == AUTO:
        return None
    if not given.isdecimal() or int(given) < 1:
        raise OmnisinkError(f"--batch-size takes {AUTO} or a positive number, got {given!r}")
    return int(given)


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show how many answers there are, and how many of them are errors."""
    with progress_bar() as tell:
        yield lambda done, total, errors: tell(done, total, f"answering, {errors} errors" if errors else "answering")
