"""Replacements that several attachments share: the first puts one in place, the last takes it away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable


class SharedPatches:
    """Reference-counted replacements, so that attachments may overlap and end in any order.

    A replacement is made by an `install` function, which returns the function that undoes it. While anyone holds the
    key the replacement stays; when the last holder lets go, it is undone.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: dict[Hashable, tuple[int, Callable[[], None]]] = {}

    def acquire(self, key: Hashable, install: Callable[[], Callable[[], None]]) -> Callable[[], None]:
        """Hold the replacement `key`, installing it if nobody does yet, and return what lets go of it, once.

        `key` says what is replaced. Objects in it are compared as usual and kept alive while held.
        """
        with self._lock:
            count, undo = self._held[key] if key in self._held else (0, install())
            self._held[key] = (count + 1, undo)
        return lambda: self._release(key)

    def _release(self, key: Hashable) -> None:
        with self._lock:
            count, undo = self._held.pop(key)
            if count > 1:
                self._held[key] = (count - 1, undo)
            else:
                undo()


#: The process's replacements: attention functions, cache methods, refusals on a model.
PATCHES = SharedPatches()


def replace_attribute(owner: object, name: str, value: object) -> Callable[[], None]:
    """Set an attribute on one object or class and return what restores it exactly, absence included."""
    own = vars(owner)
    had, old = name in own, own.get(name)
    setattr(owner, name, value)

    def undo() -> None:
        if had:
            setattr(owner, name, old)
        else:
            delattr(owner, name)

    return undo
