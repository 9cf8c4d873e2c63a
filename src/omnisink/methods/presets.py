"""Named changes of a method's settings, as data: ``outro:rotate``, ``outro:away``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A change of settings that has a name of its own.

    Parameters
    ----------
    summary : str
        What it does, in one sentence.
    changes : mapping of str to object
        Settings and their new values.
    negate : tuple of str
        Settings whose sign is turned.
    home : str, optional
        The class that takes the settings over, as ``module:Class``; None keeps the class.
    """

    summary: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    negate: tuple[str, ...] = ()
    home: str | None = None

    def apply(self, method: Any, kind: type | None = None) -> Any:
        """Return a copy of a method with the change.

        Parameters
        ----------
        method : Method
            The method to start from.
        kind : type of Method, optional
            The class named by `home`; None keeps the method's own.

        Returns
        -------
        Method
            The changed method.
        """
        settings = {one.name: getattr(method, one.name) for one in fields(method)}
        settings |= {name: -settings[name] for name in self.negate}
        return (kind or type(method))(**{**settings, **self.changes})
