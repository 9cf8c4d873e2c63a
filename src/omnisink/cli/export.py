"""`omnisink export`: a run as files that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisink.cli import options
from omnisink.cli.output import note, print_json, working
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.instance import Instance

FORMATS = ("lmms", "parquet")


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder that omnisink eval wrote.")],
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="lmms: lmms-eval's samples; parquet: a dataset."),
    ] = "parquet",
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Folder to write into. [default: RUN/FORMAT]"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="The task's folder; lmms then numbers questions as in the annotations, with their texts.",
        ),
    ] = None,
    json: options.JsonFlag = False,
) -> None:
    """Write a run in lmms-eval's sample format, or as a dataset with a card. Works on a run that goes on."""
    if form not in FORMATS:
        raise OmnisinkError(f"--format takes {' or '.join(FORMATS)}, got {form!r}")
    if data is not None and form != "lmms":
        raise OmnisinkError("--data is for --format lmms")
    folder = Path(out) if out is not None else Path(run) / form
    with working("writing"):
        from omnisink.evaluation.export import export_lmms, export_parquet

        if form == "parquet":
            written = export_parquet(run, folder)
        else:
            written = export_lmms(run, folder, None if data is None else _instances(run, data))
    if json:
        print_json({"run": run, "form": form, "files": [str(path) for path in written]})
        return
    for path in written:
        print(path)
    note(f"{len(written)} files")


def _instances(run: str, data: str) -> list[Instance]:
    """Load the questions of a run again."""
    from omnisink.evaluation.tasks.task import find_task
    from omnisink.results.records import read_manifest

    task = read_manifest(run)["task"]
    return find_task(task["name"]).load(data, task.get("protocol"), split=task.get("split"), allow_missing=True)
