"""The same questions under many settings: encoded once, asked by batch, and no answer asked for twice."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError, UnsupportedModelError, reason
from omnisink.evaluation.running.asking import ask
from omnisink.evaluation.running.batchsize import out_of_memory
from omnisink.evaluation.running.prefetch import Ready, Work, windows
from omnisink.evaluation.tasks.instance import Instance
from omnisink.media import FrameChoice
from omnisink.methods.base import Method
from omnisink.methods.settings import plain_settings
from omnisink.methods.space import is_off
from omnisink.models.adapters.embedding import placed
from omnisink.models.loaded import Loaded
from omnisink.questions.prompt import Encoded
from omnisink.results.records import RECORDS, Records, read_records
from omnisink.results.schema import TUNING_KEY, TuningRecord

Floats = NDArray[np.float64]

#: Name of the baseline among settings.
OFF = "off"


@dataclass(frozen=True)
class Batch:
    """Questions of one fold, encoded.

    Attributes
    ----------
    fold : int
        Their fold.
    instances : tuple of Instance
        The questions.
    inputs : Encoded
        What the model is given, in the memory of the host.
    """

    fold: int
    instances: tuple[Instance, ...]
    inputs: Encoded

    @property
    def clusters(self) -> list[str]:
        """The cluster of every question."""
        return [instance.cluster for instance in self.instances]


def check_askable(instances: Sequence[Instance]) -> None:
    """Refuse questions whose right answer is none of a few, as its likelihood among them is what is tuned."""
    for instance in instances:
        if not instance.can_be_compared:
            raise OmnisinkError(
                f"{instance.id}: tuning compares the likelihoods of two answers or more, of which one is right; this "
                f"question has {', '.join(instance.answers) or 'a free answer'}, and {instance.gold!r} is right. Of "
                "tasks that have a protocol with letters or yes and no, such as lettered, name that with --protocol"
            )


def prepare(
    loaded: Loaded,
    instances: Sequence[Instance],
    folds: Mapping[str, int],
    *,
    size: int,
    threads: int = 2,
    frames: FrameChoice | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Batch], dict[str, str]]:
    """Read and encode questions, in batches none of which is of two folds.

    Parameters
    ----------
    loaded : Loaded
        The model.
    instances : sequence of Instance
        The questions; neighbours about one file share what is read of it.
    folds : mapping of str to int
        The fold of every cluster.
    size : int
        Questions of a batch.
    threads : int
        Files read at a time.
    frames : FrameChoice, optional
        Which frames; None is the family's own rule.
    progress : callable, optional
        Told how many questions were read, and of how many.

    Returns
    -------
    list of Batch, dict of str to str
        The batches, and what could not be read or encoded by its id, with the reason.

    Raises
    ------
    OmnisinkError
        If nothing could be read.
    """
    waiting: dict[tuple[Any, ...], list[Ready]] = {}
    batches: list[Batch] = []
    left: dict[str, str] = {}
    done = 0

    def encode(fold: int, ready: Sequence[Ready]) -> None:
        try:
            inputs = loaded.adapter.encode(loaded, [r.prompt for r in ready], [r.media for r in ready if r.media])
        except UnsupportedModelError:
            raise
        except Exception as error:  # One question may be at fault for the others.
            if len(ready) == 1:
                left[ready[0].work.instance.id] = reason(error)
            for one in ready if len(ready) > 1 else ():
                encode(fold, [one])
            return
        batches.append(Batch(fold, tuple(r.work.instance for r in ready), moved(inputs, "cpu")))

    works = [Work(instance, ()) for instance in instances]
    for window in windows(loaded, works, size=max(8, size), threads=threads, frames=frames):
        for ready in window:
            if ready.error is not None:
                left[ready.work.instance.id] = ready.error
                continue
            fold = folds[ready.work.instance.cluster]
            alike = waiting.setdefault((fold, *ready.kind), [])
            alike.append(ready)
            if len(alike) == size:
                encode(fold, alike)
                alike.clear()
        done += len(window)
        if progress is not None:
            progress(done, len(works))
    for (fold, *_), rest in waiting.items():
        if rest:
            encode(fold, rest)
    if not batches:
        raise OmnisinkError(f"no question could be read. The first: {next(iter(left.values()), 'there is none')}")
    return batches, left


class QuestionError(OmnisinkError):
    """A batch of questions cannot be answered; one of them may be at fault for the others."""


def moved(inputs: Encoded, device: Any) -> Encoded:
    """Return inputs with their tensors on a device."""
    return inputs.with_data({name: placed(value, device) for name, value in inputs.items()})


def name_of(method: Method | None) -> str:
    """Name settings; all that leave the model as it is have one name."""
    if method is None or is_off(method):
        return OFF
    return hashlib.sha256(json.dumps(plain_settings(method), sort_keys=True).encode()).hexdigest()[:16]


class Scorer:
    """Margins of the right answer under settings, each batch asked once and written down.

    Parameters
    ----------
    loaded : Loaded
        The model.
    folder : str or Path
        Where ``records.jsonl`` is kept: one record a batch and setting.

    Attributes
    ----------
    asked : int
        Questions that were put to the model, and not taken from the records.
    """

    def __init__(self, loaded: Loaded, folder: str | Path) -> None:
        self._loaded = loaded
        self._records = Records(folder, TUNING_KEY, TuningRecord)
        self.asked = 0
        self._known: dict[tuple[str, str], float] = {}
        if (Path(folder) / RECORDS).exists():
            for record in read_records(folder):
                self._learn(record["setting"], record["margins"])

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._records.close()

    def _learn(self, setting: str, margins: Mapping[str, float]) -> None:
        self._known.update({(setting, question): value for question, value in margins.items()})

    def margins(self, method: Method | None, batch: Batch) -> Floats:
        """Return how much likelier than the best wrong answer the right one is, in nats.

        Parameters
        ----------
        method : Method or None
            The settings; None is the baseline.
        batch : Batch
            The questions.

        Returns
        -------
        ndarray of float
            One for each question; not positive where the likeliest answer is wrong.

        Raises
        ------
        OmnisinkError
            If the batch does not fit in memory; a `QuestionError` if it cannot be answered otherwise, as where an
            answer is not one token or a margin is not a number.
        """
        setting, ids = name_of(method), [instance.id for instance in batch.instances]
        if any((setting, question) not in self._known for question in ids):
            margins = self._ask(method if setting != OFF else None, batch)
            self.asked += len(ids)
            self._records.append(
                {
                    "setting": setting,
                    "batch": hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16],
                    "settings": None if setting == OFF or method is None else plain_settings(method),
                    "margins": margins,
                }
            )
            self._learn(setting, margins)
        return np.array([self._known[setting, question] for question in ids])

    def _ask(self, method: Method | None, batch: Batch) -> dict[str, float]:
        no_memory = False
        try:
            inputs = moved(batch.inputs, self._loaded.model.device)
            replies = ask(self._loaded, inputs, batch.instances, method, "likelihood")
        except UnsupportedModelError:
            raise  # It says of every question what it says of this one.
        except Exception as error:
            if not (no_memory := out_of_memory(error)):
                raise QuestionError(reason(error)) from error
        if no_memory:
            raise OmnisinkError(
                f"{len(batch.instances)} questions at once do not fit in memory: take a smaller --batch-size; what "
                "was answered is kept"
            )
        margins = {}
        for instance, reply in zip(batch.instances, replies, strict=True):
            margin = reply.margin(instance.gold)
            assert margin is not None  # `check_askable` and `ask` have seen to it.
            if not math.isfinite(margin):
                raise QuestionError(f"{instance.id}: the likelihoods of its answers are not finite numbers")
            # As it is read again, so that a search that goes on takes the very steps it took before.
            margins[instance.id] = round(margin, 6)
        return margins
