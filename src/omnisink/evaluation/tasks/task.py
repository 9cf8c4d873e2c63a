"""The tasks that come with omnisink, one YAML file each, and a user's own."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.benchmark import Task
from omnisink.evaluation.tasks.loaders import LOADERS
from omnisink.evaluation.tasks.odd import check_rules
from omnisink.evaluation.tasks.protocol import Protocol, make_protocol
from omnisink.evaluation.tasks.questions import Questions

__all__ = ["Protocol", "Questions", "Task", "find_task", "parse_task", "task_names"]

SOUNDS = ("always", "never", "if-there", "own")
_TEXTS = {"title", "paper", "licence", "size", "layout", "loader", "sound", "metric", "default", "mean_over"}
_LISTS = {"needs", "sources", "breakdowns", "notes"}
_MAPPINGS = {"fields", "annotations", "counts", "protocols", "odd_rows"}
_OPTIONAL = {"mean_over", "counts", "notes", "fields", "odd_rows"}


def task_names() -> tuple[str, ...]:
    """Return the names of the tasks that come with omnisink, in the order in which they are listed."""
    found = (f.name for f in files("omnisink.evaluation.tasks").joinpath("benchmarks").iterdir())
    names = sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))
    return tuple(sorted(names, key=lambda name: name != "synthav"))


def find_task(name: str | Path) -> Task:
    """Return a task by its name, or a user's own by the path of its JSON Lines file.

    Parameters
    ----------
    name : str or Path
        One of `task_names`, or a path that ends in ``.jsonl``, whose rows are those of
        `omnisink.questions.items.read_items`.

    Returns
    -------
    Task
        The task.

    Raises
    ------
    OmnisinkError
        If there is no such task or file.
    """
    if str(name).endswith(".jsonl"):
        from omnisink.evaluation.tasks.items import own_task

        return own_task(Path(name))
    if str(name) not in task_names():
        raise OmnisinkError(
            f"there is no task {str(name)!r}: use one of {', '.join(task_names())}, or the path of a JSON Lines file "
            "of your own"
        )
    return _shipped(str(name))


@lru_cache
def _shipped(name: str) -> Task:
    return parse_task(
        name, files("omnisink.evaluation.tasks").joinpath("benchmarks", f"{name}.yaml").read_text(encoding="utf-8")
    )


def parse_task(name: str, text: str) -> Task:
    """Read what a task's file says, and check it.

    Parameters
    ----------
    name : str
        Name of the task.
    text : str
        The YAML.

    Returns
    -------
    Task
        The task.

    Raises
    ------
    OmnisinkError
        If it is no YAML, or a key, loader, parser, metric or field is unknown; the message names it.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OmnisinkError(f"the file of task {name}: not YAML: {str(error).splitlines()[0]}") from None
    try:
        return _task(name, given)
    except OmnisinkError as error:
        raise OmnisinkError(f"the file of task {name}: {error}") from None


def _task(name: str, given: Any) -> Task:
    from omnisink.evaluation.tasks.metrics import METRICS

    if not isinstance(given, dict):
        raise OmnisinkError("the file must hold keys with values")
    known = _TEXTS | _LISTS | _MAPPINGS
    if unknown := sorted(map(str, given.keys() - known)):
        raise OmnisinkError(f"unknown key {unknown[0]!r}: use some of {', '.join(sorted(known))}")
    if absent := sorted(known - _OPTIONAL - given.keys()):
        raise OmnisinkError(f"{absent[0]} is missing")
    for key, value in given.items():
        wanted: type = str if key in _TEXTS else list if key in _LISTS else dict
        if not isinstance(value, wanted):
            raise OmnisinkError(f"{key} is of the wrong type: must be {wanted.__name__}, got {value!r}")
        # A text with a colon in it is a mapping in YAML, unless it stands in quotes.
        if isinstance(value, list) and (wrong := [one for one in value if not isinstance(one, str)]):
            raise OmnisinkError(f"{key} is of the wrong type: must be texts, got {wrong[0]!r}")
    fields = given.get("fields", {})
    if given["loader"] not in LOADERS:
        raise OmnisinkError(f"unknown loader {given['loader']!r}: use one of {', '.join(LOADERS)}")
    LOADERS[given["loader"]].check_fields(given["loader"], fields)
    if given["metric"] not in METRICS:
        raise OmnisinkError(f"unknown metric {given['metric']!r}: use one of {', '.join(METRICS)}")
    if given["sound"] not in SOUNDS:
        raise OmnisinkError(f"sound must be one of {', '.join(SOUNDS)}, got {given['sound']!r}")
    check_rules(given.get("odd_rows", {}))
    protocols = _protocols(given, fields)
    if given["default"] not in protocols:
        raise OmnisinkError(f"the default protocol {given['default']!r} is none of {', '.join(protocols)}")
    annotations = {s: (n,) if isinstance(n, str) else tuple(n) for s, n in given["annotations"].items()}
    if unknown := sorted(given.get("counts", {}).keys() - annotations.keys()):
        raise OmnisinkError(f"counts of a split that is not there: {unknown[0]}")
    lists = {key: tuple(given.get(key, ())) for key in _LISTS}
    texts = {key: given[key] for key in _TEXTS & given.keys()}
    return Task(
        name=name,
        **{**texts, **lists},
        fields=fields,
        annotations=annotations,
        counts=given.get("counts", {}),
        protocols=protocols,
        odd_rows=given.get("odd_rows", {}),
    )


def _protocols(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Protocol]:
    from omnisink.evaluation.tasks.answers import PARSERS

    extra = {*fields.get("extra", {}), *LOADERS[given["loader"]].text_fields}
    return {p: make_protocol(p, says, set(PARSERS), extra) for p, says in given["protocols"].items()}
