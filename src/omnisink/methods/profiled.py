"""Settings that come from a profile, and remember it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from typing_extensions import Self

    from omnisink.methods.profile import Profile


class Profiled:
    """What every method can do with the profiles of `omnisink tune`."""

    @classmethod
    def from_profile(cls, path: str | Path, model: nn.Module | None = None) -> Self:
        """Load the settings that `omnisink tune` found for a model.

        The file is checked against every model that the method is put on: where it was tuned for another, there is a
        `ProfileWarning`. A copy with changed settings, as of `dataclasses.replace`, is not checked any more.

        Parameters
        ----------
        path : str or Path
            The profile.
        model : nn.Module, optional
            The model it is meant for, to be warned at once.

        Returns
        -------
        Method
            The settings.

        Raises
        ------
        OmnisinkError
            If the file is not a profile of this method, or a setting is of the wrong type or out of range.
        """
        from omnisink.methods.profile import make_method, read_profile

        profile = read_profile(path)
        made: Self = make_method(profile, cls)  # type: ignore[arg-type]  # Only methods derive from it.
        # Not a field: where settings come from is none of them, and takes no part in records and comparisons.
        object.__setattr__(made, "_profile", profile)
        if model is not None:
            profile.warn(model, stacklevel=2)
        return made

    @property
    def profile(self) -> Profile | None:
        """The profile that the settings were loaded from, where they were."""
        return self.__dict__.get("_profile")
