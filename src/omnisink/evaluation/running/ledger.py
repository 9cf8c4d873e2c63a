"""What a run writes down of every question under every method, and what is still to be asked."""

from __future__ import annotations

import hashlib
import math
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch

from omnisink.evaluation.running.asking import Reply
from omnisink.evaluation.running.parts import read_parts
from omnisink.evaluation.running.prefetch import Work
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.scoring import score
from omnisink.questions.prompt import Facts
from omnisink.results.records import Records
from omnisink.results.schema import EVALUATION_KEY, EvaluationRecord


class Ledger:
    """The records of an evaluation, and what they leave to be asked.

    Parameters
    ----------
    run : str or Path
        Folder of the run, all of whose records count.
    folder : str or Path, optional
        Where this process writes its own; None is the run's folder.

    Attributes
    ----------
    errors : int
        Questions times methods whose last attempt is an error.
    """

    def __init__(self, run: str | Path, folder: str | Path | None = None) -> None:
        self._records = Records(run if folder is None else folder, EVALUATION_KEY, EvaluationRecord)
        #: Number of the last attempt, and whether it was an error.
        self._last: dict[tuple[str, str], tuple[int, bool]] = {}
        try:
            for record in sorted(read_parts(run), key=lambda r: int(r["attempt"])):
                self._last[record["id"], record["method"]] = (record["attempt"], record["error"] is not None)
        except BaseException:
            self._records.close()
            raise
        self.errors = sum(failed for _, failed in self._last.values())

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._records.close()

    def pending(self, instances: Sequence[Instance], methods: Sequence[str], *, retry: bool) -> list[Work]:
        """Return what has no record yet, and with `retry` what ended in an error, in order."""
        works = []
        for instance in instances:
            left = []
            for name in methods:
                attempt, failed = self._last.get((instance.id, name), (-1, True))
                if attempt < 0 or (failed and retry):
                    left.append((name, attempt + 1))
            if left:
                works.append(Work(instance, tuple(left)))
        return works

    def answered(
        self,
        instance: Instance,
        method: str,
        attempt: int,
        reply: Reply,
        facts: Facts,
        *,
        seconds: float | None,
        batch: int,
    ) -> None:
        """Write an answer down."""
        video = facts.media.get("video") or {}
        record: EvaluationRecord = {
            **_question(instance, method, attempt),
            "prompt_tokens": facts.prompt_tokens,
            "video_tokens": facts.video_tokens,
            "image_tokens": facts.image_tokens,
            "audio_tokens": facts.audio_tokens,
            "frames": video.get("frames_kept"),
            "audio_seconds": round(facts.audio_seconds, 3),
            "new_tokens": reply.new_tokens,
            "sinks": reply.sinks,
            "skip_ratio": _rounded(reply.skip_ratio),
            "text": reply.text,
            "parsed": reply.parsed,
            "right": _graded(score(reply.parsed, instance)),
            "loss": _rounded(reply.loss(instance.gold)),
            "margin": _rounded(reply.margin(instance.gold)),
            "seconds": None if seconds is None else round(seconds, 4),
            "batch": batch,
            "memory_mb": round(peak_memory(), 1),
        }
        self._append(record)

    def failed(self, instance: Instance, method: str, attempt: int, message: str) -> None:
        """Write an error down; it has no answer, and counts as neither right nor wrong."""
        self._append({**_question(instance, method, attempt), "error": message})

    def _append(self, record: EvaluationRecord) -> None:
        self._records.append(record)
        key = (record["id"], record["method"])
        _, was_error = self._last.get(key, (-1, False))
        is_error = record["error"] is not None
        self._last[key] = (record["attempt"], is_error)
        self.errors += is_error - was_error


def _question(instance: Instance, method: str, attempt: int) -> EvaluationRecord:
    """Return what is known of a question before it is answered; nothing of it is right, wrong or an error yet."""
    return {
        "id": instance.id,
        "method": method,
        "attempt": attempt,
        "cluster": instance.cluster,
        "groups": {kind: list(names) for kind, names in instance.groups.items()},
        "prompt_sha256": hashlib.sha256(instance.text.encode()).hexdigest()[:16],
        "text": None,
        "parsed": None,
        "gold": instance.gold,
        "right": None,
        "loss": None,
        "margin": None,
        "error": None,
        "seconds": None,
        "batch": None,
    }


def peak_memory() -> float:
    """Return the most memory held so far, in MiB: the accelerator's where there is one, else the process's."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _graded(points: float) -> bool | float:
    """Right, wrong, or a part of the points where a task gives parts."""
    return bool(points) if points in (0.0, 1.0) else points


def _rounded(value: float | None) -> float | None:
    """Round; an infinite loss, as of an answer that the model cannot give, is written as none."""
    return None if value is None or not math.isfinite(value) else round(value, 6)
