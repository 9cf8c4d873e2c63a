"""Flags in ``--help`` as they are typed, without a value: newer versions of Typer show ``<bool>`` after each."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command whose flags take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, those that are flags without a value to name."""
        return _without_values(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands whose own flags take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, those that are flags without a value to name."""
        return _without_values(super().get_params(ctx))


def _without_values(parameters: list[Any]) -> list[Any]:
    for one in parameters:
        if getattr(one, "is_flag", False):
            one.metavar = ""
    return parameters
