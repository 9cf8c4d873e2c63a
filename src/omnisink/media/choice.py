"""Rules for the frames of a video that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Indices = NDArray[np.int64]


class FrameChoice(Protocol):
    """A rule that picks frames by their times; any object with this one method will do."""

    def select(self, times: Times) -> Indices:
        """Pick frames.

        Parameters
        ----------
        times : ndarray of float64
            (M,), M > 0, seconds since the first frame, ascending: every frame of the video. Nothing has been decoded.

        Returns
        -------
        ndarray of int64
            (N,) indices into `times`, never descending; an index may come more than once.
        """
        ...


@dataclass(frozen=True)
class ByFps:
    """A number of frames per second, up to a cap; if the rate gives more, `cap` frames evenly spaced.

    Parameters
    ----------
    fps : float
        Frames per second.
    cap : int, optional
        Most frames; None for no cap.
    """

    fps: float = 2.0
    cap: int | None = 768

    def __post_init__(self) -> None:
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps must be a positive number, got {self.fps}")
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"cap must be positive, got {self.cap}")

    def select(self, times: Times) -> Indices:
        """Pick the frame on screen at every multiple of 1 / fps seconds."""
        wanted = int(np.floor(times[-1] * self.fps + 1e-6)) + 1
        if self.cap is not None and wanted > self.cap:
            return Uniform(self.cap).select(times)
        return _on_screen(times, np.arange(wanted) / self.fps)


@dataclass(frozen=True)
class Uniform:
    """So many frames, evenly spaced in time from the first to the last; all of them where there are fewer.

    Parameters
    ----------
    count : int
        Number of frames.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be positive, got {self.count}")

    def select(self, times: Times) -> Indices:
        """Pick the frames on screen at evenly spaced times."""
        if len(times) <= self.count:
            return np.arange(len(times))
        if self.count == 1:
            return _on_screen(times, times[-1:] / 2)
        return _on_screen(times, np.linspace(0.0, times[-1], self.count))


@dataclass(frozen=True)
class AtTimes:
    """The frames on screen at given times.

    Parameters
    ----------
    times : tuple of float
        Seconds since the first frame, ascending. A time after the last frame picks the last.
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.times:
            raise ValueError("times must not be empty")
        if any(not 0 <= t < float("inf") for t in self.times) or list(self.times) != sorted(self.times):
            raise ValueError(f"times must be seconds from 0 on, in order, got {self.times}")

    def select(self, times: Times) -> Indices:
        """Pick the frame on screen at every time."""
        return _on_screen(times, np.asarray(self.times))


def _on_screen(times: Times, at: Times) -> Indices:
    """Return the last frame that begins no later than each time; a microsecond of rounding is forgiven."""
    return np.maximum(np.searchsorted(times, at + 1e-6, side="right") - 1, 0).astype(np.int64)
