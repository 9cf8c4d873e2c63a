"""What commands know of a kind of method: where it comes from, what it needs and costs, and where it is tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

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
    licence : str
        Licence of the code that its authors released, or that there is none.
    derived : str
        What of it is omnisink's own, as neither paper nor release has it.
    needs : str
        What it needs besides a model: extra passes, calibration, a list of heads. Modality spans are listed by
        themselves, from `needs_spans`.
    acts_on : tuple of tuple of str
        What has to be in a prompt for the method to do anything: of each group, one modality at least. Empty where it
        acts on every prompt.
    calibrated : tuple of str
        Settings that belong to a model and have to be found on a calibration set. While they are the defaults, the
        list ``all`` leaves the method out.
    cost : str
        What it adds to a prefill and to a decode step.
    example : mapping of str to object
        Values to try it with, for settings that have no default.
    measured : str
        What was measured here, with numbers, the model and the data; empty where nothing was.
    tested : str
        What the tests run it with: attention backends, caches, padding, compilation.
    search_space : mapping or SearchSpace, optional
        Where `omnisink tune` looks for settings, by name; None derives it from the fields (`omnisink.methods.space`).
    unsearchable : str
        Why `omnisink tune` cannot search settings of the class at all, as an error goes on after its name; empty where
        it can.
    """

    presets: ClassVar[Mapping[str, Preset]] = {}
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    derived: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    acts_on: ClassVar[tuple[tuple[str, ...], ...]] = ()
    calibrated: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = ""
    example: ClassVar[Mapping[str, Any]] = {}
    measured: ClassVar[str] = ""
    tested: ClassVar[str] = ""
    unsearchable: ClassVar[str] = ""
    search_space: ClassVar[Mapping[str, Range] | SearchSpace | None] = None

    def attends_in(self) -> frozenset[str]:
        """Return where this method or its branches attend in place of the model: in ``"prompt"``, in ``"steps"``.

        Two methods that do so in the same passes cannot be composed.
        """
        return frozenset()
