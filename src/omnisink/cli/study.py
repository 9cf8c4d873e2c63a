"""`omnisink study`: the paper's questions about a model's sinks, its controls, and a page to look at."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import method_options, options
from omnisink.cli.demo import CLIP, QUESTIONS
from omnisink.cli.grouped import grouped
from omnisink.cli.media import warnings_noted
from omnisink.cli.output import CHECK_FAILED, note, print_json, working
from omnisink.cli.preflight import check_model, check_report, check_there
from omnisink.cli.progress import progress_bar
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.methods.base import Method
    from omnisink.models.loaded import Loaded
    from omnisink.questions.items import Item
    from omnisink.study.run import Progress

#: What --quick takes in place of the defaults: one clip, every sixth layer of heads, one draw, few layers that rank.
QUICK: dict[str, Any] = {
    "seeds": 1,
    "calibration": 1,
    "heads_items": 1,
    "heads_every": 6,
    "pruning_items": 1,
    "pruning_layers": (3, 5, 15),
    "keeps": (0.2,),
    "direction_gammas": (0.5,),
}
#: Texts written for this, four of each of 16 kinds, which are their clusters.
PASSAGES = Path(__file__).parents[1] / "study" / "passages.jsonl"
#: User time of SmolOmni's quick study, 343 s, was measured on two cores that other programs kept busy.
QUICK_TIME = "six minutes of processor time, so at least three on two cores that are idle"


@grouped
def study(
    model: options.ModelOption = "smolomni",
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="FILE", help="Questions with answers, as JSON Lines. [default: the shipped clip]"
        ),
    ] = None,
    passages: Annotated[
        bool, typer.Option("--passages", help="Use the 64 shipped texts, of 16 kinds, in place of --data.")
    ] = False,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for records, results and page.")] = "study",
    questions: Annotated[
        str, typer.Option(metavar="LIST", help="all, or some of identification,heads,values,causality,direction.")
    ] = "all",
    methods: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Further conditions of the causal question, named as for `omnisink eval`."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"A first answer for one clip: {QUICK_TIME}.")] = False,
    items: Annotated[
        int | None, typer.Option("--items", min=1, help="Use only this number of items, the first ones.")
    ] = None,
    gamma: Annotated[
        list[float] | None,
        typer.Option("--gamma", metavar="NUMBER", help="Strength of the rotation; may be repeated."),
    ] = None,
    tau: method_options.TauOption = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Draws of each random condition. [default: 3]")] = None,
    heads_items: Annotated[
        int | None, typer.Option(min=1, help="Items on which every head is zeroed. [default: 16]")
    ] = None,
    pruning_items: Annotated[
        int | None, typer.Option(min=1, help="Items on which tokens are pruned. [default: 40]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=options.LARGEST_SEED, help="Seed of everything random.")] = 0,
    loading: options.LoadingOptions = options.LOADING,
    json: options.JsonFlag = False,
) -> None:
    """Study a model's sinks: which tokens and heads, what they carry and cause. Goes on where it was stopped."""
    if passages:
        if data is not None:
            raise OmnisinkError("--passages and --data both name the items: give one of them")
        data = str(PASSAGES)
    if data is None and not quick:
        raise OmnisinkError(
            "give items with --data FILE or --passages, or ask for a first look at the shipped clip with --quick"
        )
    check_report()
    wanted = items or (1 if quick else None)
    asked, digest = (_shipped(), None) if data is None else _read(data, wanted)
    check_there(model, loading.download)
    with working("importing"):
        from omnisink.models.facts import check_can_answer_some
        from omnisink.report import write_report
        from omnisink.study.plan import Plan, parse_questions
        from omnisink.study.run import check_study, run_study
    chosen = {"seeds": seeds, "heads_items": heads_items, "pruning_items": pruning_items}
    settings = {**(QUICK if quick else {}), **{k: v for k, v in chosen.items() if v is not None}}
    if gamma:
        settings["direction_gammas"] = tuple(gamma)
    if methods is not None:
        settings["methods"] = _conditions(methods, model, tau, seed)
    plan = Plan(
        questions=parse_questions(questions),
        gammas=tuple(gamma or _strengths(model)),
        tau=0.1 if tau is None else tau,
        seed=seed,
        **settings,
    )
    source = {"file": CLIP.name if data is None else Path(data).name, "items": len(asked)}
    check_can_answer_some(model, asked)
    facts: dict[str, Any] = {
        "versions": options.versions(),
        "data": {**source, "sha256": digest},
        "command": shlex.join(["omnisink", *sys.argv[1:]]),
        "quick": quick,
    }
    check_study(out, plan, asked, facts)
    check_model(model, loading.device, loading.dtype)
    loaded = options.load(model, loading)
    facts["model"] = _describe(loaded)
    if quick:
        note(f"a quick study of SmolOmni takes {QUICK_TIME}")
    with _bar() as progress, warnings_noted(several=True):
        results = run_study(loaded, asked, plan, out, facts=facts, progress=progress)
    with working("drawing the page"):
        page = write_report(results, out)
    if json:
        print_json(results)
    else:
        for section, sentences in results["readings"].items():
            print(f"{section}")
            for sentence in sentences:
                print(f"  {sentence}")
        print(page)
    note(
        "one clip shows what is measured; intervals need more items: omnisink study --data FILE"
        if quick
        else f"numbers are in {out}/results.json"
    )
    if failed := results["run"]["failed"]:
        for item, why in failed.items():
            note(f"left out: {item}: {why}")
        note(f"{len(failed)} of {len(asked)} items could not be run, and count for nothing; the same line tries again")
        raise typer.Exit(CHECK_FAILED)


def _conditions(names: str, model: str, tau: float | None, seed: int) -> dict[str, Method]:
    """Return the methods that ``--methods`` adds to the study's own conditions."""
    from omnisink.methods.names import BASELINE
    from omnisink.methods.registry import parse_methods

    found = parse_methods(names, method_options.starts_of(names, model, None, tau, None), seed)
    if None in found.values():
        raise OmnisinkError(
            f"--methods adds conditions that are compared with the {BASELINE}, which is there without a name"
        )
    return {name: method for name, method in found.items() if method is not None}


def _strengths(model: str) -> list[float]:
    """Return the strength that the model is used with elsewhere, and the paper's where that is another."""
    own, paper = method_options.make_outro(model, None).gamma, method_options.make_outro("", None).gamma
    return sorted({own, paper})


def _read(data: str, wanted: int | None) -> tuple[list[Item], str]:
    """Return the items of a file and its checksum, and say which rows are left out."""
    from omnisink.evaluation.tasks.remarks import remark_on_bad
    from omnisink.evaluation.tasks.rows import Bad
    from omnisink.questions.items import checksum, read_usable_items

    asked, bad = read_usable_items(data, wanted)
    name = Path(data).name
    for line in remark_on_bad(name, [Bad(f"{name}:{number}", why) for number, why in bad]):
        note(line)
    return asked, checksum(data)


def _shipped() -> list[Item]:
    """Return the demo's questions about the shipped clip."""
    from omnisink.questions.items import Item

    return [
        Item(f"demo-{i}", question, right, choices, video=CLIP, cluster=CLIP.name)
        for i, (question, choices, right, _) in enumerate(QUESTIONS, 1)
    ][1:2]


def _describe(loaded: Loaded) -> dict[str, Any]:
    from omnisink.decoder.anatomy import read_anatomy

    config: Any = read_anatomy(loaded.model).text_model.config
    return {
        **options.describe(loaded),
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": getattr(config, "num_key_value_heads", config.num_attention_heads),
        "width": config.hidden_size,
    }


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show the share of the study that is done."""
    with progress_bar(percent=True) as tell:
        yield lambda share, what: tell(share, 1.0, what)
