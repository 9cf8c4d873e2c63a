"""`omnisink methods`: what can be named wherever a command takes a method, with its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import options
from omnisink.cli.output import note, print_json, stdout, text, working
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.methods.registry import Registered


def methods(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Methods to describe in full, or FILE.py::CLASS. [default: a list of all]"),
    ] = None,
    write: Annotated[
        str | None, typer.Option(metavar="PAGE", help="Replace the list in this page, such as docs/methods.md.")
    ] = None,
    json: options.JsonFlag = False,
) -> None:
    """List the methods, or describe some: what each does, its settings, where it comes from, what it needs."""
    with working("importing"):
        from omnisink.methods.catalogue import read_page, write_list
        from omnisink.methods.registry import Registered, find_method, registered_methods
    if write is not None:
        if names:
            raise OmnisinkError("--write takes all methods: a page of some would lose the others")
        read_page(write)
        write_list(write)
        note(f"the list in {write} is written")
        return
    known = registered_methods()
    by_name = {one.name: one for one in known}
    chosen = [by_name.get(name) or Registered(name, find_method(name), "a file") for name in names or ()]
    if json:
        print_json([_plain(one) for one in chosen or known])
    elif chosen:
        for one in chosen:
            _describe(one)
    else:
        for one in known:
            stdout().print(text(f"{one.name}\n    {one.summary}"), soft_wrap=True)
        note("`omnisink methods NAME` has the settings; a method in a file of yours is named FILE.py::CLASS")


def _plain(one: Registered) -> dict[str, Any]:
    return {
        "name": one.name,
        "summary": one.summary,
        "settings": one.settings(),
        "presets": {name: preset.summary for name, preset in one.kind.presets.items()},
        **one.facts(),
        "needs_spans": one.kind.needs_spans,
        "origin": one.origin,
    }


def _describe(one: Registered) -> None:
    from omnisink.methods.catalogue import FACTS

    lines = [one.name, f"    {one.summary}"]
    lines += [f"    {field} = {default}" for field, default in one.settings().items()]
    lines += [f"    {one.name}:{name}: {preset.summary}" for name, preset in one.kind.presets.items()]
    lines += [f"    {FACTS[what]}: {said}" for what, said in one.facts().items() if said]
    lines.append(f"    from: {one.origin}")
    stdout().print(text("\n".join(lines)), soft_wrap=True)
