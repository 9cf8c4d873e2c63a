"""The errors omnisink raises on purpose, so that a caller can catch them by one name."""

from __future__ import annotations

import reprlib


class OmnisinkError(Exception):
    """Something omnisink was asked to do cannot be done; the message names what and why."""


class UnsupportedModelError(OmnisinkError):
    """The model, or the way it is run, is one on which the method would be silently wrong."""


class MediaError(OmnisinkError):
    """A video, sound or image file cannot be used; the message names the file and the reason."""


def reason(error: BaseException) -> str:
    """Write an error in one line for a record or a note: ours say what is wrong, others need their class."""
    text = " ".join(str(error).split())[:1000]
    return text if isinstance(error, OmnisinkError) else f"{type(error).__name__}: {text}"


def shown(value: object) -> str:
    """Write a value for an error message: in one short line, whatever its size, and with escapes for what is unseen.

    Parameters
    ----------
    value : object
        What was given: a text, a number, or data of them, of any size and depth.

    Returns
    -------
    str
        Its `repr`, cut where it is long.
    """
    text = _SHOWING.repr(value)
    if "\n" in text:  # A model shows itself in many lines.
        text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 300


class _Showing(reprlib.Repr):
    """Cut texts at 80 characters, lists and objects at six entries, and depth at three."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """Write a whole number; of one that Python refuses to write, how long it is."""
        return super().repr_int(x, level) if abs(x) <= 10**18 else f"a whole number of {x.bit_length()} bits"


_SHOWING = _Showing()
