"""Settings that come from a profile, and remember it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from typing_extensions import Self

    from omnisink.methods.profile import Profile


class Profiled:
    """What every method can do with the profiles of `omnisink tune`."""

    @classmethod
    def from_profile(cls, path: str | Path, model: Any = None) -> Self:
        """Load the settings that `omnisink tune` found for a model.

        The file is checked against every model that the method is put on: where it was tuned for another, there is a
        `ProfileWarning`. A copy with changed settings, as of `dataclasses.replace`, is not checked any more.

        Parameters
        ----------
        path : str or Path
            The profile.
        model : nn.Module, Loaded or Pipeline, optional
            The model it is meant for, to be warned at once.

        Returns
        -------
        Method
            The settings.

        Raises
        ------
        OmnisinkError
            If no file is given, it is not a profile of this method, or a setting is of the wrong type or out of range.
        """
        from omnisink.methods.given import model_of
        from omnisink.methods.profile import make_method, read_profile

        call = f"{cls.__name__}.from_profile(...)"
        if not isinstance(path, str | PathLike):
            raise OmnisinkError(
                f"{call} takes the file that `omnisink tune` wrote, as from_profile('profile.json'), and was "
                f"given an object of the type {type(path).__name__}; of an embedded model, give "
                "shipped_profile(model)"
            )
        profile = read_profile(path)
        made: Self = make_method(profile, cls)  # type: ignore[arg-type]  # Only methods derive from it.
        # Not a field: where settings come from is none of them, and takes no part in records and comparisons.
        object.__setattr__(made, "_profile", profile)
        if model is not None:
            profile.warn(model_of(model, call), stacklevel=2)
        return made

    @property
    def profile(self) -> Profile | None:
        """The profile that the settings were loaded from, where they were."""
        return self.__dict__.get("_profile")
