"""`omnisink tasks`: the benchmarks, what each needs, and whether a folder has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import options
from omnisink.cli.columns import print_columns
from omnisink.cli.flags import PlainCommand, PlainGroup
from omnisink.cli.output import note, print_json, stderr, stdout, text, working

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.check import Check
    from omnisink.evaluation.tasks.task import Task

tasks = typer.Typer(
    name="tasks",
    cls=PlainGroup,
    help="List the benchmarks, with where to get them, or check a folder before a model is loaded.",
    pretty_exceptions_enable=False,
)
#: So many problems are shown; --json has all.
SHOWN = 20


@tasks.callback(invoke_without_command=True)
def _list(
    context: typer.Context,
    json: options.JsonFlag = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    with working("reading"):
        from omnisink.evaluation.tasks.task import find_task, task_names

        found = [find_task(name) for name in task_names()]
    if json:
        print_json([_plain(task) for task in found])
        return
    rows = [(t.name, _protocols(t), t.size, t.licence, "; ".join(t.sources)) for t in found]
    print_columns([("name", "protocols", "size", "licence", "where to get it"), *rows], least=3, shrinking=2)
    note("* is used where none is named. `omnisink tasks show NAME` has the licence, and where the data are")


@tasks.command(cls=PlainCommand)
def show(
    name: Annotated[str, typer.Argument(help="A task, or the path of a JSON Lines file of your own.")],
    json: options.JsonFlag = False,
) -> None:
    """Say all there is to know of a task: its source, licence, folder, protocols and traps."""
    from omnisink.evaluation.tasks.task import find_task

    task = find_task(name)
    if json:
        print_json(_plain(task))
        return
    rows: list[tuple[Any, ...]] = [
        ("title", task.title),
        ("paper", task.paper),
        ("licence", task.licence),
        ("size", task.size),
        ("needs", ", ".join(task.needs)),
        ("splits", ", ".join(task.splits)),
        ("metric", f"{task.metric}{f' over {task.mean_over}' if task.mean_over else ''}"),
        ("by", ", ".join(task.breakdowns)),
        *((f"--{name}", ", ".join(map(str, value))) for name, value in task.source.check_settings(task, {}).items()),
        *(("source", source) for source in task.sources),
        ("folder", task.layout),
        *((f"protocol {p.name}", p.source) for p in task.protocols.values()),
        *(("note", line) for line in task.notes),
    ]
    _print_table(("", task.name), [row for row in rows if row[1]])


@tasks.command(cls=PlainCommand)
def check(
    name: Annotated[str, typer.Argument(help="A task, or the path of a JSON Lines file of your own.")],
    data: Annotated[str | None, typer.Option("--data", metavar="DIR", help="The data folder.")] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="NAME", help="[default: the task's first]")] = None,
    json: options.JsonFlag = False,
) -> None:
    """Say what is missing or wrong in a task's folder. Exit status 1 if something is."""
    from rich.progress import Progress

    from omnisink.evaluation.tasks.check import check_task
    from omnisink.evaluation.tasks.task import find_task

    task = find_task(name)
    with Progress(console=stderr(), transient=True) as bar:
        opened = bar.add_task("opening files", total=None)
        found = check_task(task, data, split, lambda done, total, _: bar.update(opened, completed=done, total=total))
    if json:
        print_json(found.to_dict())
    else:
        _report(found)
    if found.errors:
        raise typer.Exit(1)


def _report(found: Check) -> None:
    for problem in found.problems[:SHOWN]:
        stdout().print(text(f"{problem.severity}  {problem.where}: {problem.what}"))
    if len(found.problems) > SHOWN:
        print(f"... and {len(found.problems) - SHOWN} more; --json lists all")
    for line in found.remarks:
        note(line)
    warnings = len(found.problems) - found.errors
    counts = ((found.questions, "question"), (found.files, "file"), (found.errors, "error"), (warnings, "warning"))
    print(f"{found.task}, {found.split}: {', '.join(_count(*c) for c in counts)}")


def _protocols(task: Task) -> str:
    return ", ".join(f"{name}*" if name == task.default else name for name in task.protocols)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _plain(task: Task) -> dict[str, Any]:
    keys = ("name", "title", "paper", "licence", "size", "needs", "sources", "layout", "splits", "metric", "mean_over")
    more = ("breakdowns", "counts", "default", "notes")
    protocols = {name: {"source": p.source, "parser": p.parser} for name, p in task.protocols.items()}
    settings = task.source.check_settings(task, {})
    return {**{key: getattr(task, key) for key in (*keys, *more)}, "protocols": protocols, "settings": settings}


def _print_table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(head):
        made.add_column(name, overflow="fold", no_wrap=i == 0)
    for row in rows:
        made.add_row(*(text(str(cell)) for cell in row))
    stdout().print(made)
