"""What commands know of a kind of method: its presets, its source, what it is tested with and where it is tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from omnisink.methods.presets import Preset
from omnisink.methods.space import Range, SearchSpace


class Listed:
    """What a method may say of itself.

    Attributes
    ----------
    presets : mapping of str to Preset
        Changes of settings that a user may name, as in ``outro:rotate``.
    source : str
        The paper that the method comes from, for `omnisink methods`.
    needs : str
        What it needs besides a model: extra passes, calibration, a list of tokens.
    tested : str
        What the tests run it with: attention backends, caches, padding, compilation.
    search_space : mapping or SearchSpace, optional
        Where `omnisink tune` looks for settings, by name; None derives it from the fields (`omnisink.methods.space`).
    """

    presets: ClassVar[Mapping[str, Preset]] = {}
    source: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    tested: ClassVar[str] = ""
    search_space: ClassVar[Mapping[str, Range] | SearchSpace | None] = None
