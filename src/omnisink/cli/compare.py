"""`omnisink compare`: what the methods of a run are worth, next to what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from omnisink.cli import options
from omnisink.cli.glance import print_comparison
from omnisink.cli.output import note, print_json, working
from omnisink.extras import install


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders that omnisink eval wrote.")],
    baseline: Annotated[
        str, typer.Option(metavar="METHOD", help="The method that the others are compared with.")
    ] = "baseline",
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder to write into. [default: comparison, inside the run if there is one]"
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Also write the page.")] = True,
    seed: Annotated[int, typer.Option(min=0, max=options.LARGEST_SEED, help="Seed of the resampling.")] = 0,
    resamples: Annotated[
        int, typer.Option(min=99, help="Number of resamples for intervals and permutation tests.")
    ] = 9999,
    json: options.JsonFlag = False,
) -> None:
    """Compare the methods of runs: of several tasks, or several seeds of a task. Works on a run that goes on."""
    show_comparison(runs, baseline=baseline, out=out, page=page, seed=seed, resamples=resamples, json=json)


def show_comparison(
    runs: Sequence[str],
    *,
    baseline: str = "baseline",
    out: str | None = None,
    page: bool = True,
    seed: int = 0,
    resamples: int = 9999,
    json: bool = False,
) -> None:
    """Compare, print and write, for this command and for the end of `omnisink eval`. Arguments as the options."""
    with working("reading and comparing"):
        from omnisink.evaluation.comparing.compare import compare as compare_runs
        from omnisink.evaluation.comparing.tables import write_tables
        from omnisink.report.write import missing_libraries

        results = compare_runs(runs, baseline, seed=seed, resamples=resamples)
    folder = Path(out) if out is not None else Path(runs[0] if len(runs) == 1 else "") / "comparison"
    written = write_tables(results, folder)
    missing = missing_libraries() if page else []
    if page and not missing:
        from omnisink.report.comparison import write_comparison

        with working("drawing the page"):
            written.append(write_comparison(results, folder))
    if json:
        print_json(results)
    else:
        print_comparison(results, runs[0])
    if missing:
        note(f"no page was drawn without {' and '.join(missing)}; {install('report')}")
    note(f"written to {folder}: {', '.join(path.name for path in written)}")
