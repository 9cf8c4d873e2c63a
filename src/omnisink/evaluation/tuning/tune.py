"""Tuning: a search for settings, and what they are worth on questions that the search did not see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np

from omnisink.decoder.anatomy import read_anatomy
from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.run import checksum
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tuning.scoring import Batch, Floats, QuestionError, Scorer, check_askable, prepare
from omnisink.evaluation.tuning.search import Trial, choose, probability_margin, search
from omnisink.evaluation.tuning.tuned import Tested, gain_of
from omnisink.media import FrameChoice
from omnisink.methods.base import Method
from omnisink.methods.names import name_of
from omnisink.methods.outro import OutRo
from omnisink.methods.outro_space import direction_of
from omnisink.methods.registry import settings_of
from omnisink.methods.settings import plain_settings
from omnisink.methods.space import space_of
from omnisink.models.loaded import Loaded
from omnisink.results.disk import atomic_write
from omnisink.results.records import check_start, start
from omnisink.results.schema import TUNING_FORMAT, TaskFacts, TuningManifest

RESULTS = "results.json"
#: What may differ when a run is taken up: the answers that are kept depend on none of it.
_MAY_DIFFER = ("started", "command", "model.device", "search")

#: Told what is being done, and how much of it, of how much.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Tuning:
    """How settings are searched.

    Attributes
    ----------
    trials : int
        Settings that are tried in each search.
    folds : int
        Searches on a part of the questions whose choice is tested on the rest; 0 tests nothing.
    seed : int
        Seed of the folds, the order of the questions and the sampler.
    batch_size : int
        Questions at once.
    threads : int
        Files read at a time.
    frames : FrameChoice or None
        Which frames; None is the model family's own rule.
    """

    trials: int = 40
    folds: int = 3
    seed: int = 0
    batch_size: int = 4
    threads: int = 2
    frames: FrameChoice | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "batch_size", "threads"):
            if (value := getattr(self, name)) < 1:
                raise OmnisinkError(f"{name} must be positive, got {value}")
        if self.folds != 0 and self.folds < 2:
            raise OmnisinkError(f"tuning takes two folds or more, or 0 to test nothing, got {self.folds}")


def tune(
    loaded: Loaded,
    instances: Sequence[Instance],
    tuning: Tuning,
    folder: str | Path,
    *,
    first: Method | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search the settings of a method for a model, and measure what the search is worth.

    For every fold, settings are searched on the questions of the others and the choice is tested on its own. What
    these tests give together is the gain that is reported. The settings themselves come from one more search, on all
    questions.

    A run that was stopped goes on where it was; at most one batch is asked again.

    Parameters
    ----------
    loaded : Loaded
        The model.
    instances : sequence of Instance
        The questions, whose answers are one token each. They are not to be those that results are reported on.
    tuning : Tuning
        How much is searched.
    folder : str or Path
        Folder of the run: ``manifest.json``, ``records.jsonl`` and ``results.json``. The inputs of all questions are
        held in memory meanwhile.
    first : Method, optional
        The setting that is tried first; what is not searched stays as it is here. None is OutRo's defaults.
    facts : mapping, optional
        What else the manifest says: ``model``, ``versions``, ``command``, ``task``.
    progress : callable, optional
        Told what is done.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    OmnisinkError
        If there are fewer clusters than folds, the run was begun with other questions or another model, a batch does
        not fit in memory, something that is needed is not installed, or no setting of the method can be searched.
    """
    check_askable(instances)
    folds = assign_folds(instances, max(1, tuning.folds), tuning.seed)
    first = first or OutRo()
    start(folder, _manifest(instances, tuning, first, facts or {}), ignore=_MAY_DIFFER)
    tell = progress or (lambda what, done, total: None)
    batches, left = prepare(
        loaded,
        instances,
        folds,
        size=tuning.batch_size,
        threads=tuning.threads,
        frames=tuning.frames,
        progress=lambda done, total: tell("reading", done, total),
    )
    order = np.random.default_rng(tuning.seed).permutation(len(batches))
    batches = [batches[i] for i in order]
    depth = max(1, len(read_anatomy(loaded.model).layers) - 2)
    total = (tuning.folds + 1) * tuning.trials
    with Scorer(loaded, folder) as scorer:
        kept: list[Batch] = []
        for number, batch in enumerate(batches, 1):
            kept += _answerable(scorer, loaded, batch, folds, tuning, left)
            tell("the baseline", number, len(batches))
        batches = kept
        if not batches:
            raise OmnisinkError(f"no question could be answered. The first: {next(iter(left.values()))}")

        def gains(method: Method | None, batch: Batch) -> Floats:
            return probability_margin(scorer.margins(method, batch)) - probability_margin(scorer.margins(None, batch))

        def searched(seen: Sequence[Batch], name: str, before: int) -> list[Trial]:
            return search(
                gains,
                seen,
                depth=depth,
                start=first,
                trials=tuning.trials,
                seed=tuning.seed,
                progress=lambda done: tell(name, before + done, total),
            )

        tested: list[Tested] = []
        by_fold = []
        for fold in range(tuning.folds):
            seen, unseen = _split(batches, fold)
            best = choose(searched(seen, f"fold {fold + 1} of {tuning.folds}", fold * tuning.trials))
            method = None if best is None else best.method
            own_test = _tested(scorer, method, unseen, f"in the test of fold {fold + 1}", left)
            tested += own_test
            by_fold.append(
                {
                    "searched_on": sum(len(batch.instances) for batch in seen),
                    "tested_on": sum(len(one.batch.instances) for one in own_test),
                    "settings": None if method is None else plain_settings(method),
                    "gain_where_searched": 0.0 if best is None else best.gain,
                    "gain_where_tested": float(np.concatenate([gains(method, one.batch) for one in own_test]).mean()),
                }
            )
        tried = searched(batches, "all questions", tuning.folds * tuning.trials)
        best = choose(tried)
        method = space_of(first).off(first) if best is None else best.method
        own = [Tested(batch, scorer.margins(method, batch), scorer.margins(None, batch)) for batch in batches]
    results = {
        "format": TUNING_FORMAT,
        "method": name_of(type(first)),
        "settings": None if method is None else plain_settings(method),
        "direction": None if method is None else direction_of(plain_settings(method)),
        "off": best is None,
        "gain": gain_of(tested, own, tuning.seed),
        "questions": sum(len(batch.instances) for batch in batches),
        "clusters": len({cluster for batch in batches for cluster in batch.clusters}),
        "sha256": checksum(instances),
        "left_out": left,
        "search": describe(tuning, first),
        "folds": by_fold,
        "trials": [
            {
                "gain": t.gain,
                "questions": t.questions,
                "stopped": t.stopped,
                "error": t.error,
                "settings": plain_settings(t.method),
            }
            for t in tried
        ],
    }
    content = (json.dumps(results, ensure_ascii=False, indent=1) + "\n").encode()
    atomic_write(Path(folder) / RESULTS, content)
    read: dict[str, Any] = json.loads(content)
    return read  # As it is read from the file: layers are lists.


def _tested(
    scorer: Scorer, method: Method | None, unseen: Sequence[Batch], where: str, left: dict[str, str]
) -> list[Tested]:
    """Test a setting on the questions of a fold; those that cannot be answered under it go into `left`."""

    def test(batch: Batch) -> Tested | None:
        try:
            return Tested(batch, scorer.margins(method, batch), scorer.margins(None, batch))
        except QuestionError as error:
            left.update({instance.id: f"{where}: {error}" for instance in batch.instances})
            return None

    found = [one for batch in unseen if (one := test(batch)) is not None]
    if not found:
        raise OmnisinkError(f"no question could be answered {where}. The last: {next(reversed(left.values()))}")
    return found


def _answerable(
    scorer: Scorer, loaded: Loaded, batch: Batch, folds: Mapping[str, int], tuning: Tuning, left: dict[str, str]
) -> list[Batch]:
    """Return the part of a batch that the baseline can answer, in batches of their own; `left` gets the rest."""
    try:
        scorer.margins(None, batch)
    except QuestionError as error:
        if len(batch.instances) == 1:
            left[batch.instances[0].id] = str(error)
            return []
    else:
        return [batch]
    ones, unread = prepare(loaded, batch.instances, folds, size=1, threads=tuning.threads, frames=tuning.frames)
    left.update(unread)
    return [kept for one in ones for kept in _answerable(scorer, loaded, one, folds, tuning, left)]


def check_tune(
    instances: Sequence[Instance], tuning: Tuning, folder: str | Path, first: Method, facts: Mapping[str, Any]
) -> None:
    """Refuse what `tune` would refuse, as far as that is known without the model; nothing is written."""
    check_askable(instances)
    space_of(first)
    assign_folds(instances, max(1, tuning.folds), tuning.seed)
    check_start(folder, _manifest(instances, tuning, first, facts), ignore=(*_MAY_DIFFER, "model"))


def assign_folds(instances: Sequence[Instance], count: int, seed: int) -> dict[str, int]:
    """Give every cluster a fold, at random, so that folds are of nearly equal size.

    Parameters
    ----------
    instances : sequence of Instance
        The questions.
    count : int
        How many folds.
    seed : int
        Seed of the random assignment.

    Returns
    -------
    dict of str to int
        Questions of one cluster are all in its fold.

    Raises
    ------
    OmnisinkError
        If there are fewer clusters than folds.
    """
    names = sorted({instance.cluster for instance in instances})
    if len(names) < count or not names:
        raise OmnisinkError(
            f"{count} folds need as many clusters of questions, and there are {len(names)}: take more questions, or "
            "fewer folds"
        )
    size = {name: sum(instance.cluster == name for instance in instances) for name in names}
    full = [0] * count
    folds = {}
    for i in np.random.default_rng(seed).permutation(len(names)):
        fold = full.index(min(full))
        folds[names[i]] = fold
        full[fold] += size[names[i]]
    return folds


def _split(batches: Sequence[Batch], fold: int) -> tuple[list[Batch], list[Batch]]:
    seen = [batch for batch in batches if batch.fold != fold]
    unseen = [batch for batch in batches if batch.fold == fold]
    if not seen or not unseen:
        raise OmnisinkError("a fold has no question that could be read: take fewer folds, or look at the files")
    return seen, unseen


def describe(tuning: Tuning, first: Method) -> dict[str, Any]:
    """Return what was searched and how, as plain data."""
    return {
        "objective": "mean of tanh(margin / 2), less that of the baseline",
        "trials": tuning.trials,
        "folds": tuning.folds,
        "seed": tuning.seed,
        "batch_size": tuning.batch_size,
        **space_of(first).describe(),
    }


def _manifest(
    instances: Sequence[Instance], tuning: Tuning, first: Method, facts: Mapping[str, Any]
) -> TuningManifest:
    task = cast(TaskFacts, facts.get("task") or {})
    return {
        "format": TUNING_FORMAT,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": facts.get("command"),
        "model": facts.get("model"),
        "versions": facts.get("versions"),
        "task": {**task, "questions": len(instances), "sha256": checksum(instances)},
        # Not its settings, which are kept with every answer; but the code must be the same.
        "method": {key: value for key, value in (settings_of(first) or {}).items() if key in ("name", "code_sha256")},
        "frames": None if tuning.frames is None else repr(tuning.frames),
        "search": {**describe(tuning, first), "first": plain_settings(first)},
    }
