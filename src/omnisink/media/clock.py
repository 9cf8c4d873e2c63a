"""The clock of a broadcast recording, which may begin again in the middle of the file."""

from __future__ import annotations

from typing import Any

#: A clock that goes back by this much, or forward by that much, was set anew; FFmpeg's program has the same bounds.
_BACK, FORTH = 0.1, 10.0
#: Containers whose recordings are appended to one another.
_APPENDED = {"mpegts", "mpeg"}


def in_seconds(stamp: int, base: Any) -> float:
    """Return a number of ticks of a clock in seconds; `base` is a tick, a `Fraction` of a second.

    The same number as ``float(stamp * base)``, which takes longer; it is asked for with every packet.
    """
    return float(stamp * base.numerator / base.denominator)


class Clock:
    """Tells by how many seconds timestamps have to be moved so that their stream goes on without a break.

    It has to be shown every packet of a file, in order. All streams are moved by the same time at each new beginning,
    so that sound and picture stay together.

    Parameters
    ----------
    container : str
        FFmpeg's name of the format. The clocks of others are taken at their word.

    Attributes
    ----------
    shifts : list of float
        Seconds by which the parts of the file are moved, one for each; the first part is not.
    """

    def __init__(self, container: str) -> None:
        self._appended = container in _APPENDED
        self.shifts = [0.0]
        self._parts: dict[int, int] = {}
        self._ends: dict[int, float] = {}

    @property
    def watches(self) -> bool:
        """Whether packets of all streams have to be shown."""
        return self._appended

    def shift(self, packet: Any) -> float:
        """Return by how many seconds a packet has to be moved."""
        if not self._appended or packet.dts is None or packet.time_base is None:
            return 0.0
        stream, part = packet.stream.index, self._parts.get(packet.stream.index, 0)
        base = packet.time_base
        time = in_seconds(packet.dts, base)
        end = self._ends.get(stream)
        late = 0.0 if end is None else time + self.shifts[part] - end
        if late < -_BACK or late > FORTH:
            part += 1
            if part == len(self.shifts):
                assert end is not None
                self.shifts.append(end - time)
            self._parts[stream] = part
        self._ends[stream] = time + self.shifts[part] + in_seconds(packet.duration or 0, base)
        return self.shifts[part]
