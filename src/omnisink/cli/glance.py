"""A comparison on the terminal: the answer first, a line a method, what changes where, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnisink.cli.columns import GAP, cut, print_columns
from omnisink.cli.next_steps import after_comparison
from omnisink.cli.output import stdout, text

#: Largest number of groups shown in which something changes; the files have all.
_GROUPS = 5
#: The name of a group keeps this number of characters, however narrow the terminal is.
_LEAST = 12


def print_comparison(results: Mapping[str, Any], run: str) -> None:
    """Print a comparison so that it is read in one look.

    Parameters
    ----------
    results : mapping
        What `omnisink.evaluation.comparing.compare.compare` returned.
    run : str
        Folder of the run, for the command to go on with.
    """
    from omnisink.evaluation.comparing.summary import answer, missed, sample, summary_rows
    from omnisink.results.wording import percent

    for task in results["tasks"]:
        _say(answer(task, results["baseline"]), bold=True)
        base = next(row for row in task["methods"] if row["baseline"])
        _say(f"{sample(task)}; {base['method']} scores {percent(base['accuracy'])}")
        print()
        print_columns(summary_rows(task), least=4)
        if explained := missed(task):
            _say(explained)
        _print_groups(task)
        for said in task["notes"]:
            _say(f"note: {said}")
        print()
    for why, command in after_comparison(results, run):
        _say(f"next: {why}")
        # A line that the terminal itself turns is still one line when it is copied.
        _say(f"{GAP}{command}", wrap=False)


def _print_groups(task: Mapping[str, Any]) -> None:
    """Show the groups that change most, and count the others."""
    from omnisink.evaluation.comparing.summary import changes_anything
    from omnisink.results.wording import counted, points_interval, spaced

    groups = task["breakdowns"]
    if not groups:
        return
    moving = sorted((row for row in groups if changes_anything(row)), key=lambda row: -abs(row["difference"]))
    if moving:
        print()
        _say("groups that change most, none of which is a test:")
    shown = [
        (
            points_interval(row["difference"], row["low"], row["high"]),
            counted(row["questions"], "question"),
            f"{spaced(row['kind'])}: {row['group']}, {row['method']}",
        )
        for row in moving[:_GROUPS]
    ]
    sizes = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for change, questions, where in shown:
        line = f"{GAP}{change:<{sizes[0]}}{GAP}{questions:>{sizes[1]}}{GAP}"
        _say(line + cut(where, max(_LEAST, stdout().width - len(line)), middle=False), wrap=False)
    still, more = len(groups) - len(moving), len(moving) - _GROUPS
    parts = [f"{counted(more, 'more row changes', 'more rows change')} something"] if more > 0 else []
    parts += [f"no answer changes in {still} of {len(groups)} rows of groups"] if still else []
    if parts:
        _say(f"{'; '.join(parts)}; comparison.md has all")


def _say(line: str, *, bold: bool = False, wrap: bool = True) -> None:
    said = text(line)
    if bold:
        said.stylize("bold")
    stdout().print(said, soft_wrap=None if wrap else True)
