"""`omnisink models`: the families and ported models omnisink is verified on, and the verification itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import method_options, options
from omnisink.cli.columns import print_columns
from omnisink.cli.output import note, print_json, quiet, stdout, text
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.verification.family import Family
    from omnisink.verification.ports.row import PortedModel
    from omnisink.verification.verify import Result

#: What the verification runs with; any strength would do, as long as it moves the outputs.
GAMMA = 0.5


def models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Families and ported models to take. [default: all]")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Run a tiny model of each family, offline.")] = False,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="PAGE",
            help="With --verify: replace the tables in this page, such as docs/models.md; with --device cuda, its "
            "column for GPUs.",
        ),
    ] = None,
    device: options.DeviceOption = None,
    json: options.JsonFlag = False,
) -> None:
    """List model families and ported models, or verify that each does what is promised. Exit status 1 if not."""
    from omnisink.verification.families import FAMILIES
    from omnisink.verification.ports import ROWS

    unknown = [name for name in names or () if name not in {**FAMILIES, **ROWS}]
    if unknown:
        raise OmnisinkError(f"unknown family {unknown[0]!r}: use some of {', '.join([*FAMILIES, *ROWS])}")
    chosen = [family for name, family in FAMILIES.items() if not names or name in names]
    ported = [port for name, port in ROWS.items() if not names or name in names]
    if write is not None and (not verify or names):
        raise OmnisinkError("--write goes with --verify, and with all families: a table of some would lose the others")
    if device is not None and not verify:
        raise OmnisinkError("--device goes with --verify: it says where the models run")
    if not verify:
        _list(chosen, ported, json)
        return
    results = _verify(chosen, ported, write, device, json)
    deviating = [result for result in results if not result.as_expected]
    for result in deviating:
        problems = "; ".join(result.problems) or result.refusal
        note(f"{result.name}: {result.outcome}, expected {result.expectation}. {problems}")
    if deviating:
        raise typer.Exit(1)


def _list(families: list[Family], ported: list[PortedModel], json: bool) -> None:
    entries: list[Family | PortedModel] = [*families, *ported]
    if json:
        keys = ("name", "title", "modalities", "example", "expectation", "note", "backends")
        print_json([{key: getattr(one, key) for key in keys} for one in entries])
        return
    print(_summary(Counter(f.expectation for f in families), Counter(p.expectation for p in ported)))
    print()
    rows = [(f.name, f.expectation, "+".join(f.modalities), f.title) for f in entries]
    print_columns([("name", "promise", "takes", "family"), *rows], least=3)
    print()
    # Those that share a note share a line.
    noted: dict[str, list[str]] = {}
    for entry in entries:
        if entry.note:
            noted.setdefault(entry.note, []).append(entry.name)
    for said, names in noted.items():
        stdout().print(text(f"{', '.join(names)}: {said}"))
    note("--verify runs a tiny model of each and checks the promise")


def _summary(families: Mapping[str, int], ported: Mapping[str, int]) -> str:
    """Say how many have each outcome: "2 families: 1 supported, 1 partial; 1 ported or outside model: 1 supported"."""
    said = (
        _counted(families, "family", "families"),
        _counted(ported, "ported or outside model", "ported or outside models"),
    )
    return "; ".join(part for part in said if part)


def _counted(counts: Mapping[str, int], one: str, several: str) -> str:
    total = sum(counts.values())
    parts = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"{total} {one if total == 1 else several}: {parts}" if total else ""


def _verify(
    families: list[Family], ported: list[PortedModel], write: str | None, device: str | None, json: bool
) -> list[Result]:
    from rich.progress import Progress

    from omnisink.cli.output import stderr

    method = method_options.make_outro("", GAMMA)
    from omnisink.models.loading import check_device
    from omnisink.verification import support_table
    from omnisink.verification.ports import table
    from omnisink.verification.ports.verify import verify_ports
    from omnisink.verification.verify import verify_all

    place = check_device(device)
    if write is not None:
        support_table.read_page(write)
        table.read_page(write)
    quiet()
    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("verifying", total=len(families) + len(ported) + 1)

        def show(title: str) -> None:
            bar.update(task, advance=1, description=title)

        results = verify_all(families, method, show, place)
        of_ports = verify_ports(ported, method, show, place)
    if write is not None:
        _write(results, of_ports, write, place)
    counts = [Counter(result.outcome for result in some) for some in (results, of_ports)]
    results += of_ports
    if json:
        where = {"device": _named(place), "versions": options.versions()}
        print_json({**where, "results": [result.to_dict() for result in results]})
        return results
    deviating = sum(not result.as_expected for result in results)
    kept = "each does what is promised" if not deviating else f"{deviating} not as promised, marked with !"
    print(f"{_summary(*counts)}; {kept}")
    print()
    rows = [
        (r.name, r.outcome if r.as_expected else f"{r.outcome}!", f"{r.seconds:.1f}", ", ".join(r.backends), r.title)
        for r in results
    ]
    print_columns([("name", "outcome", "seconds", "backends", "family"), *rows], least=3)
    return results


def _write(results: list[Result], ported: list[Result], page: str, place: Any) -> None:
    """Write what was found into the tables of a page: whole from the CPU, one column from another device."""
    import datetime

    from omnisink.verification.ports.table import write_ports
    from omnisink.verification.support_table import write_gpu_column, write_table

    if place.type == "cpu":
        write_table(results, page, options.versions())
        write_ports(ported, page, options.versions())
        note(f"the tables of {page} are written")
    else:
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        write_gpu_column(results, page, options.versions(), _named(place), today)
        note(f"the column for GPUs in the table of {page} is written")


def _named(place: Any) -> str:
    """Return a device's name for people."""
    import torch

    return torch.cuda.get_device_name(place) if place.type == "cuda" else str(place)
