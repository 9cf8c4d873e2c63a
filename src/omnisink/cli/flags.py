"""Options in ``--help`` as they are typed.

Newer versions of Typer show the type of every option, as ``<bool>``, ``<int range> [x>=1]`` or ``<list[str]>``. Here a
flag has no value, a number is ``NUMBER``, a choice shows what can be chosen, and an argument is its name.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command whose help shows options as they are typed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments, with what stands for their values in the help."""
        return [_as_typed(one, ctx) for one in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    """A group of commands whose help shows options as they are typed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments, with what stands for their values in the help."""
        return [_as_typed(one, ctx) for one in super().get_params(ctx)]


def _as_typed(one: Any, ctx: Any) -> Any:
    # Older versions of Typer ask for none of the two that are set here, and show an argument by its name.
    one._get_number_range_help_str = _nothing
    if not hasattr(one, "is_flag"):  # an argument
        one.display_type_rich = _nothing
    elif one.is_flag:
        one.metavar = ""
    elif one.metavar is None and hasattr(one, "display_type"):
        kind = one.display_type(ctx).strip("<>")
        one.metavar = "NUMBER" if kind.split()[0] in ("int", "float") else kind
    return one


def _nothing(*_: Any, **__: Any) -> None:
    """Show nothing."""
