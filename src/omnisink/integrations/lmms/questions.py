"""Our tasks for lmms-eval: the same questions, prompts, parsers and scores as in our own runner.

The files below ``tasks/`` name these functions. What lmms-eval calls a doc is an `Instance` of ours, written as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.answers import parse
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.metrics import measure
from omnisink.evaluation.tasks.scoring import score
from omnisink.evaluation.tasks.task import find_task
from omnisink.integrations.lmms.messages import messages_of

_PATHS = ("video", "image", "audio")


def variable(task: str) -> str:
    """Return the environment variable that names a task's data folder: ``OMNISINK_DATA_AVHBENCH``."""
    return "OMNISINK_DATA_" + re.sub(r"\W", "_", task).upper()


def load(task: str, protocol: str | None = None, where: Mapping[str, str] | None = None) -> Any:
    """Load a task's questions.

    Parameters
    ----------
    task : str
        Name of a task of ours; its data folder is what its environment variable says.
    protocol : str, optional
        Protocol of the question; None is the task's default.
    where : mapping of str to str, optional
        Only questions of these groups.

    Returns
    -------
    datasets.Dataset
        One row a question.

    Raises
    ------
    OmnisinkError
        If the variable is not set, or the folder is not as it should be; it is logged too, as lmms-eval tries five
        times and then shows its own error first.
    """
    from datasets import Dataset

    folder = os.environ.get(variable(task))
    try:
        if not folder:
            raise OmnisinkError(f"set {variable(task)} to the data folder of {task}: {find_task(task).layout}")
        return Dataset.from_list(_rows(task, folder, protocol, tuple(sorted((where or {}).items()))))
    except OmnisinkError as error:
        _tell_once(f"omnisink: {error}")
        raise


def doc_of(instance: Instance) -> dict[str, str]:
    """Return a question as a row: its text and answer to be read, and all of it as JSON."""
    fields = asdict(instance)
    fields |= {name: str(fields[name]) for name in _PATHS if isinstance(fields[name], Path)}
    return {
        "id": instance.id,
        "question": instance.text,
        "answer": instance.gold,
        "video": str(instance.video or ""),
        "instance": json.dumps(fields, ensure_ascii=False),
    }


def instance_of(doc: Mapping[str, Any]) -> Instance:
    """Return the question of a row."""
    fields = json.loads(doc["instance"])
    for name in _PATHS:
        fields[name] = Path(fields[name]) if isinstance(fields[name], str) else fields[name]
    for name in ("answers", "options"):
        fields[name] = tuple(fields[name])
    fields["groups"] = {kind: tuple(names) for kind, names in fields["groups"].items()}
    return Instance(**fields)


def to_messages(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a question as chat messages."""
    return messages_of(instance_of(doc))


def to_visual(doc: Mapping[str, Any]) -> list[str]:
    """Return a question's files, for simple models."""
    instance = instance_of(doc)
    return [str(path) for name in _PATHS if isinstance(path := getattr(instance, name), Path)]


def to_text(doc: Mapping[str, Any]) -> str:
    """Return a question's text; chat models get its messages, and lmms-eval's cache knows it by this."""
    return str(doc["question"])


def to_target(doc: Mapping[str, Any]) -> str:
    """Return the right answer."""
    return str(doc["answer"])


def score_results(name: str, doc: Mapping[str, Any], results: Sequence[Any], breakdown: str = "") -> dict[str, Any]:
    """Read and score an answer.

    Parameters
    ----------
    name : str
        Name of the score, such as ``"avhbench_score"``; lmms-eval's ``--baseline`` looks for names with ``score``.
    doc : mapping
        The question.
    results : sequence
        Answer of the model, one text.
    breakdown : str
        A field of groups, whose groups have scores of their own.

    Returns
    -------
    dict
        The score with the answer and the video, for `mean`; whether the answer could not be read; the scores of the
        question's groups.
    """
    instance = instance_of(doc)
    said = str(results[0])
    parsed = parse(said, instance)
    points = score(parsed, instance)
    groups = {field: list(names) for field, names in instance.groups.items()}
    whole = {"score": points, "cluster": instance.cluster, "pred": parsed, "answer": instance.gold}
    own = {slug(group): points for group in groups.get(breakdown, ())}
    return {**own, "unparsed": float(parsed is None), name: whole}


def slug(group: str) -> str:
    """Return the name of a group's metric: ``"event_sequence"``."""
    return re.sub(r"\W+", "_", group.lower()).strip("_")


def mean(found: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean of scores."""
    return sum(float(one["score"]) for one in found) / len(found)


def f1(found: Sequence[Sequence[Any]]) -> float:
    """Return AVHBench's F1 of yes."""
    return _yes_no(found)["f1"]


def precision(found: Sequence[Sequence[Any]]) -> float:
    """Return AVHBench's precision of yes."""
    return _yes_no(found)["precision"]


def recall(found: Sequence[Sequence[Any]]) -> float:
    """Return AVHBench's recall of yes."""
    return _yes_no(found)["recall"]


def said_yes(found: Sequence[Sequence[Any]]) -> float:
    """Return how often yes was said."""
    return _yes_no(found)["yes"]


def avhbench_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    """Score an answer to AVHBench; its yes-no metrics are made of the same records."""
    found = score_results("avhbench_score", doc, results)
    whole = found["avhbench_score"]
    # A list, as lmms-eval would take a standard error of accuracy for that of F1 if it found a score here.
    record = [whole["pred"], whole["answer"], whole["score"]]
    return {**dict.fromkeys(("f1", "precision", "recall", "yes"), record), **found}


def _yes_no(found: Sequence[Sequence[Any]]) -> Mapping[str, float]:
    records = [{"parsed": pred, "gold": gold, "right": right, "groups": {}} for pred, gold, right in found]
    return measure(records, "yes_no").extra["all"]


daily_omni_results = partial(score_results, "daily_omni_score", breakdown="type")
synthav_results = partial(score_results, "synthav_score", breakdown="category")


@lru_cache
def _rows(task: str, folder: str, protocol: str | None, where: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [doc_of(instance) for instance in find_task(task).load(folder, protocol, where=dict(where))]


@lru_cache
def _tell_once(message: str) -> None:
    logging.getLogger(__name__).error(message)
