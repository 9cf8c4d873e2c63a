"""What to do next, as commands that can be copied: after a comparison, and where a run was stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: Options of `omnisink eval` that `omnisink tune` takes too, with whether a value follows.
_SHARED = {
    "--model": True,
    "-m": True,
    "--task": True,
    "-t": True,
    "--data": True,
    "--protocol": True,
    "--lengths": True,
    "--only": True,
    "--device": True,
    "--dtype": True,
    "--attn": True,
    "--download": False,
    "--trust-remote-code": False,
}


def command_line(words: Sequence[str] | None = None) -> str:
    """Write the command as it was typed, or another, for a shell."""
    return shlex.join(["omnisink", *(sys.argv[1:] if words is None else words)])


def after_comparison(results: Mapping[str, Any], run: str) -> list[tuple[str, str]]:
    """Say what to do with what a comparison found.

    Parameters
    ----------
    results : mapping
        What `omnisink.evaluation.comparing.compare.compare` returned.
    run : str
        Folder of its first run.

    Returns
    -------
    list of tuple of str
        What to do, and the command that does it. Commands repeat the options that the run was made with, each as one
        word for the shell: a manifest that somebody else wrote can hold anything.
    """
    from omnisink.evaluation.comparing.wording import HIGHER, NO_EVIDENCE

    pairs = [row["paired"] for task in results["tasks"] for row in task["methods"] if row["paired"] is not None]
    verdicts = {pair["verdict"] for pair in pairs}
    made = str((results["runs"] or [{}])[0].get("command") or "")
    if any(task["missing"] for task in results["tasks"]) and _words(made):
        return [("some questions are missing; the same command goes on", command_line(["eval", *_words(made)]))]
    if not pairs:
        return [("name a method to compare", _again(made, run, {"--methods": "baseline,outro"}))]
    if HIGHER in verdicts:
        seed = str(
            1 + max((seed for task in results["tasks"] for seed in task["seeds"] if seed is not None), default=0)
        )
        return [("see whether it holds with another seed", _again(made, f"{run}-seed-{seed}", {"--seed": seed}))]
    tuning = command_line(["tune", *_shared(made)])
    if NO_EVIDENCE not in verdicts:
        return [("search for settings that do no harm", tuning)]
    steps = []
    if limit := _value(made, "--limit"):
        more = str(4 * int(limit))
        again = _again(made, f"{run}-{more}", {"--limit": more})
        steps.append(("ask four times as many questions, which misses half as much", again))
    return [*steps, ("search settings for this model and task", tuning)]


def _words(command: str) -> list[str]:
    """Return the words of a command after its verb, none where it is not one of `omnisink eval`."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    return words[2:] if words[:2] == ["omnisink", "eval"] else []


def _shared(command: str) -> list[str]:
    words, kept = iter(_words(command)), []
    for word in words:
        name, equals, _ = word.partition("=")
        if name in _SHARED:
            kept.append(word)
            if _SHARED[name] and not equals:
                kept += [value for value in [next(words, None)] if value is not None]
    return kept


def _value(command: str, option: str) -> str | None:
    """Return the value of an option that takes a whole number."""
    words = _words(command)
    for word, after in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == option:
            found = value if equals else after
            return found if found.isascii() and found.isdecimal() and len(found) < 9 else None
    return None


def _again(command: str, out: str, changed: Mapping[str, str]) -> str:
    """Write the command of a run with another folder and other values."""
    new = {**changed, "--out": out}
    words, kept = iter(_words(command)), []
    for word in words:
        name, equals, _ = word.partition("=")
        if name in new:
            if not equals:
                next(words, None)
            continue
        kept.append(word)
    return command_line(["eval", *kept, *(part for pair in new.items() for part in pair)])
