"""Does a method help? A task under several methods and the comparison, in one call from Python."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError, shown
from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.comparing.comparison import Comparison
from omnisink.evaluation.running.line_up import LineUp, line_up
from omnisink.evaluation.running.run import Progress, Settings, check_run, run
from omnisink.evaluation.tasks.task import find_task
from omnisink.methods.base import Method
from omnisink.methods.controls_of_contrast import with_controls
from omnisink.methods.names import BASELINE
from omnisink.methods.shipped import default_outro, default_router
from omnisink.models.loaded import Loaded
from omnisink.models.provenance import describe, versions


def evaluate(
    model: Loaded,
    task: str | Path,
    methods: Mapping[str, Method | None] | str,
    out: str | Path,
    *,
    controls: bool = True,
    data: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Comparison:
    """Ask the questions of a task without a method and with each of several, and compare the answers in pairs.

    What ``omnisink eval`` does in a shell. A run that was stopped goes on where it was; one that is finished is only
    compared again.

    Parameters
    ----------
    model : Loaded
        What `load_model` returned.
    task : str or Path
        A name of `task_names`, or the path of a JSON Lines file of your own.
    methods : mapping of str to Method, or str
        By the names that they have in the comparison, as ``{"outro": OutRo(gamma=0.3)}``; or a list of names as
        `omnisink.methods.parse_methods` takes it, as ``"outro,outro+avcd"``, or ``"all"``: every method that the model
        and the task admit in its default setting. The model without a method is asked too.
    out : str or Path
        Folder of the run.
    controls : bool
        Beside a contrastive method, run its control too: the same cut of implausible tokens with no contrast
        (`omnisink.methods.plausible.PlausibleTokens`), once for each `beta`.
    data : str or Path, optional
        Where the task's files are; tasks that make their questions and files of your own need none.
    limit : int, optional
        Ask this number of questions only.
    seed : int
        Seed of the random numbers of intervals and permutations.
    progress : callable, optional
        Called after every batch with how many answers there are, of how many, and the errors among them.
    **settings
        Further fields of `omnisink.evaluation.running.run.Settings`, as ``batch_size=1``.

    Returns
    -------
    Comparison
        Every method beside the baseline; `Comparison.answers` says yes, no, or cannot tell.

    Warns
    -----
    UserWarning
        For each kind of row that is left out or odd; and for the methods that ``"all"`` leaves out, with the reasons.

    Raises
    ------
    OmnisinkError
        If the model or the methods are of another kind, the task cannot be asked, or the folder holds the run of other
        questions or settings.
    """
    if not isinstance(model, Loaded):
        raise OmnisinkError(
            f"evaluate() asks what load_model returned, and was given {type(model).__name__}: it has to know the "
            "tokenizer and the family too"
        )
    if not isinstance(methods, str):
        _check_methods(methods)
    found = find_task(task)
    read = found.read(data, limit=limit, model=model)
    for line in read.remarks:
        warnings.warn(line, stacklevel=2)
    if isinstance(methods, str):
        starts = [default_outro(model.name), default_router(model.name)]
        frames = settings.get("frames")
        made = line_up(methods, starts, seed, controls=controls, loaded=model, instances=read.instances, frames=frames)
        if said := made.sentence():
            warnings.warn(said, stacklevel=2)
    else:
        named: dict[str, Method | None] = {name: one for name, one in methods.items() if one is not None}
        made = LineUp(with_controls(named) if controls else named)
    asked = {name: one for name, one in made.methods.items() if name != BASELINE}
    chosen = Settings({BASELINE: None, **asked}, **settings)
    facts = {"task": found.facts(), "seed": seed, "versions": versions(), "model": describe(model)}
    facts |= {"left_out": made.left_out}
    check_run(out, read.instances, chosen, facts)
    run(model, read.instances, chosen, out, facts=facts, progress=progress)
    return compare([out], seed=seed)


def _check_methods(methods: Any) -> None:
    """Refuse what is not methods by name."""
    named = {name: one for name, one in methods.items() if one is not None} if isinstance(methods, Mapping) else {}
    if BASELINE in named or not named or not all(isinstance(one, Method) for one in named.values()):
        raise OmnisinkError(
            f'evaluate() takes methods by name, as {{"outro": OutRo(gamma=0.3)}}, none of them called {BASELINE}, or '
            f'the names of some, as "outro,outro+vcd"; got {shown(methods)}'
        )
