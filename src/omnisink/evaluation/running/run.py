"""A run: every question under every method, with records that survive a kill, and errors that are never answers."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast

from omnisink.decoder.anatomy import Anatomy, read_anatomy
from omnisink.decoder.replay import share
from omnisink.errors import OmnisinkError, UnsupportedModelError, reason
from omnisink.evaluation.running.asking import SCORES, ask
from omnisink.evaluation.running.batchsize import LARGEST, SMALLEST, BatchSize, out_of_memory
from omnisink.evaluation.running.ledger import Ledger
from omnisink.evaluation.running.parts import Picked, Rank
from omnisink.evaluation.running.prefetch import Ready, batches, together, windows
from omnisink.evaluation.tasks.instance import Instance
from omnisink.media import FrameChoice
from omnisink.methods.base import Method
from omnisink.methods.registry import settings_of
from omnisink.models.loaded import Loaded
from omnisink.questions.prompt import Encoded
from omnisink.results.records import check_start, start
from omnisink.results.schema import EVALUATION_FORMAT, EvaluationManifest, TaskFacts

#: So many questions that all fail, and no answer yet, is a fault of the run and not of the questions.
_HOPELESS = 8
#: One question in this number is asked without sharing, so that the methods can be timed.
TIMED = 20
#: What may differ when a run is taken up: neither the answers nor their scores depend on it.
_MAY_DIFFER = ("started", "command", "model.device")

#: Why an answer does not count that was read off states that overflowed.
_NO_NUMBERS = "the likelihoods of its answers are not numbers: the model's states overflow, or its weights are damaged"

Result = TypeVar("Result")

#: Called after every batch with: questions times methods done, of how many, and errors among them.
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How a run is made.

    Attributes
    ----------
    methods : mapping of str to Method or None
        By name; None is the baseline.
    score : {"generate", "likelihood"}
        See `omnisink.evaluation.running.asking.ask`.
    batch_size : int or None
        Questions at once; None looks for a size. A batch that does not fit in memory is halved.
    threads : int
        Files read at a time.
    retry_errors : bool
        Ask again what ended in an error before.
    frames : FrameChoice or None
        Which frames; None is the model family's own rule.
    share : bool
        Let the methods share what comes before the first layer at which one of them does something. Answers are the
        same to the bit; times are then taken only of one question in `TIMED`, in small batches that share nothing.
    """

    methods: Mapping[str, Method | None]
    score: str = "generate"
    batch_size: int | None = None
    threads: int = 2
    retry_errors: bool = False
    frames: FrameChoice | None = None
    share: bool = True

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise OmnisinkError(f"answers are scored by {' or '.join(SCORES)}, got {self.score!r}")
        for name in ("batch_size", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OmnisinkError(f"{name} must be positive, got {value}")


def run(
    loaded: Loaded,
    instances: Sequence[Instance],
    settings: Settings,
    folder: str | Path,
    *,
    facts: Mapping[str, Any] | None = None,
    rank: Rank | Picked | None = None,
    size: BatchSize | None = None,
    progress: Progress | None = None,
) -> None:
    """Answer every question under every method; a run that was stopped goes on where it was.

    A kill loses the batch that was with the model, and nothing is asked twice. An error of one question is a record of
    that question; the others go on.

    Parameters
    ----------
    loaded : Loaded
        The model.
    instances : sequence of Instance
        The questions; neighbours about one file share what is read of it.
    settings : Settings
        Methods, scoring and batches.
    folder : str or Path
        Folder of the run. Its ``manifest.json`` and ``records.jsonl`` are described in docs/eval.md.
    facts : mapping, optional
        What else the manifest says: ``model``, ``versions``, ``command``, ``task``.
    rank : Rank, optional
        Which of several processes this is; it answers its share of the questions. None is the only one.
    size : BatchSize, optional
        What an earlier call has learned of how many questions fit, and how many batches it asked; None begins anew.
    progress : callable, optional
        Called after every batch.

    Raises
    ------
    OmnisinkError
        If the run was begun with other settings or questions, the records cannot be written, or the first questions
        all fail.
    UnsupportedModelError
        If a method refuses the model.
    """
    rank = rank or Rank()
    own = rank.folder(folder)
    if rank.first:
        begin_run(folder, instances, settings, facts or {})
    begin_run(own, instances, settings, facts or {})
    with Ledger(folder, own) as ledger:
        mine = rank.share(instances)
        works = ledger.pending(mine, list(settings.methods), retry=settings.retry_errors)
        total = len(mine) * len(settings.methods)
        runner = _Runner(loaded, settings, ledger, size or BatchSize(settings.batch_size))
        left = sum(len(work.methods) for work in works)
        runner.done = total - left

        def tell() -> None:
            if progress is not None:
                progress(runner.done, total, ledger.errors)

        tell()
        ahead = max(8, 4 * (settings.batch_size or LARGEST // 4))
        for window in windows(loaded, works, size=ahead, threads=settings.threads, frames=settings.frames):
            for ready in window:
                if ready.error is not None:
                    runner.fail(ready, ready.work.methods, ready.error)
            for alike in batches(window):
                while alike:
                    sizes = runner.size
                    shares = settings.share and len(alike[0].work.methods) > 1
                    # Not the first batch, which warms everything up.
                    timing = shares and sizes.batches > 0 and sizes.timed * TIMED <= sizes.asked
                    count = together(alike, min(sizes.size, SMALLEST) if timing else sizes.size)
                    batch, alike = alike[:count], alike[count:]
                    begin = time.perf_counter()
                    turned = _turned(batch[0].work.methods, sizes.batches)
                    runner.answer(batch, turned, timed=timing or not settings.share)
                    sizes.count(len(batch), timed=timing)
                    if not timing:  # The two kinds of batches cannot be compared with each other.
                        sizes.worked(len(batch), time.perf_counter() - begin)
                    tell()
            tell()


def _turned(methods: Sequence[tuple[str, int]], turn: int) -> list[tuple[str, int]]:
    """Let another method begin with every batch: the first finds memory and caches as the batch before left them."""
    first = turn % len(methods)
    return [*methods[first:], *methods[:first]]


@dataclass(frozen=True)
class _Problem:
    """Why a batch could not be answered."""

    message: str
    no_memory: bool


def _tried(work: Callable[[], Result]) -> Result | _Problem:
    """Do something with a batch; what goes wrong is returned, so that nothing holds on to the batch's tensors.

    What the disk refuses to take is not a fault of a question: records are written elsewhere.
    """
    try:
        return work()
    except UnsupportedModelError:
        raise  # It says of every question what it says of this one.
    except Exception as error:  # Whatever it is, it becomes a record.
        return _Problem(reason(error), out_of_memory(error))


@dataclass
class _Runner:
    """What one process does with its batches."""

    loaded: Loaded
    settings: Settings
    ledger: Ledger
    size: BatchSize
    done: int = 0
    answered: int = 0
    failed: int = 0

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's decoder."""
        return read_anatomy(self.loaded.model)

    def answer(self, batch: list[Ready], methods: list[tuple[str, int]], *, timed: bool = False) -> None:
        """Answer a batch under every method; where something fails, in smaller parts, down to the one at fault."""
        media = [ready.media for ready in batch if ready.media]
        prompts = [ready.prompt for ready in batch]
        inputs = _tried(partial(self.loaded.adapter.encode, self.loaded, prompts, media))
        if isinstance(inputs, _Problem):
            self._divide(batch, methods, len(methods), inputs)
            return
        shares = not timed and len(methods) > 1
        # The baseline does nothing at any layer: whatever the others have left is of use to it.
        left = sorted(methods, key=lambda m: shares and self.settings.methods[m[0]] is None)
        problem = None
        with share(self.anatomy) if shares else nullcontext() as sharing:
            while left and problem is None:
                if sharing is not None:
                    sharing.keeps = len(left) > 1
                problem = self._ask(batch, inputs, *left[0], timed=not shares)
                left = left if problem else left[1:]
        if problem is None:
            return
        del inputs  # What is asked next needs the memory.
        if problem.no_memory and shares and len(batch) == 1:
            self.answer(batch, left, timed=True)  # What is kept to be shared takes memory too.
        else:
            self._divide(batch, left, 1, problem)

    def _ask(self, batch: list[Ready], inputs: Encoded, name: str, attempt: int, *, timed: bool) -> _Problem | None:
        """Answer a batch under one method and write it down."""
        asked = [ready.work.instance for ready in batch]
        begin = time.perf_counter()
        method = self.settings.methods[name]
        replies = _tried(partial(ask, self.loaded, inputs, asked, method, self.settings.score))
        each = (time.perf_counter() - begin) / len(batch) if timed else None
        if isinstance(replies, _Problem):
            return replies
        for ready, reply, known in zip(batch, replies, inputs.facts, strict=True):
            if any(math.isnan(chance) for chance in reply.log_likelihoods.values()):
                self.fail(ready, [(name, attempt)], _NO_NUMBERS)
                continue
            self.ledger.answered(ready.work.instance, name, attempt, reply, known, seconds=each, batch=len(batch))
            self.answered += 1
            self.done += 1
        return None

    def _divide(self, batch: list[Ready], methods: list[tuple[str, int]], failed: int, problem: _Problem) -> None:
        """Go on with the parts of a batch; the first `failed` methods of one question are errors, the others go on."""
        smaller = self.size.too_large(len(batch)) if problem.no_memory else len(batch) > 1
        if smaller:
            while batch:
                step = self.size.size if problem.no_memory else 1  # The first part may have been too large still.
                part, batch = batch[:step], batch[step:]
                self.answer(part, methods)
            return
        self.fail(batch[0], methods[:failed], problem.message)
        if methods[failed:]:
            self.answer(batch, methods[failed:])

    def fail(self, ready: Ready, methods: Sequence[tuple[str, int]], message: str) -> None:
        """Record an error under methods, with the name of the file that is asked about."""
        instance = ready.work.instance
        about = next((path.name for path in (instance.video, instance.image, instance.audio) if path), None)
        if about is not None and about not in message:
            message = f"{about}: {message}"
        for name, attempt in methods:
            self.ledger.failed(ready.work.instance, name, attempt, message)
            self.done += 1
            self.failed += 1
        if not self.answered and self.failed >= _HOPELESS * len(self.settings.methods):
            raise OmnisinkError(f"the first questions all fail, so the run was stopped. The last: {message}")


def manifest_of(instances: Sequence[Instance], settings: Settings, facts: Mapping[str, Any]) -> EvaluationManifest:
    """Return what a run says of itself; arguments and errors as for `run`."""
    if not instances:
        raise OmnisinkError("there is no question to ask")
    task = cast(TaskFacts, facts.get("task") or {})
    return {
        "format": EVALUATION_FORMAT,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": facts.get("command"),
        "model": facts.get("model"),
        "versions": facts.get("versions"),
        "task": {**task, "questions": len(instances), "sha256": checksum(instances)},
        "methods": {name: settings_of(method) for name, method in settings.methods.items()},
        "left_out": facts.get("left_out") or None,
        "score": settings.score,
        "frames": None if settings.frames is None else repr(settings.frames),
        "seed": facts.get("seed", 0),
    }


def check_run(folder: str | Path, instances: Sequence[Instance], settings: Settings, facts: Mapping[str, Any]) -> None:
    """Refuse a folder that `run` would refuse, as far as that is known without the model; nothing is written."""
    check_start(folder, manifest_of(instances, settings, facts), ignore=(*_MAY_DIFFER, "model"))


def begin_run(folder: str | Path, instances: Sequence[Instance], settings: Settings, facts: Mapping[str, Any]) -> None:
    """Write a folder's manifest, or see that it is of this run; arguments and errors as for `run`."""
    start(folder, manifest_of(instances, settings, facts), ignore=_MAY_DIFFER)


def checksum(instances: Sequence[Instance]) -> str:
    """Return the SHA-256 of what is asked, in hexadecimal: every field of every question, and the sizes of its files.

    Files count by name and size; reading videos of many gigabytes to their end would take longer than it is worth.
    """
    digest = hashlib.sha256()
    for instance in instances:
        fields = asdict(instance)
        for name in ("video", "image", "audio"):
            if isinstance(path := fields[name], Path):
                fields[name] = [path.name, path.stat().st_size if path.exists() else None]
        digest.update(json.dumps(fields, sort_keys=True, default=list).encode())
    return digest.hexdigest()
