"""The index of a video: which frames it shows, and when.

It is read from the packets, so every frame has its true time, also where the rate varies, and nothing is decoded for
it but the first frame. Files without timestamps are decoded once instead, and their times come from the frame rate.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.clock import FORTH, Clock, in_seconds
from omnisink.media.convert import special_of
from omnisink.media.files import duration_of, open_media
from omnisink.media.limits import MAX_FRAMES
from omnisink.media.streams import video_stream

#: What a packet has instead of a timestamp that is missing.
MISSING = np.iinfo(np.int64).min
#: Frames per second where a file says nothing at all, as FFmpeg has it.
_RATE = 25
#: What is missing of a file before it counts as cut off: this share of its length, and this many seconds.
MISSING_SHARE, MISSING_SECONDS = 0.05, 0.5
#: Containers that say how long they last in their head, and neither how many frames nor how many bytes they have.
_SAY_DURATION = {"flv", "live_flv", "asf", "asf_o", "nut"}


@dataclass(frozen=True)
class FrameIndex:
    """Every frame that a player shows.

    Attributes
    ----------
    pts : ndarray of int64
        (M,), ascending, in units of the stream's time base.
    times : ndarray of float64
        (M,), seconds since the first frame.
    start : float
        Time of the first frame on the file's clock, in seconds.
    places : ndarray of int64
        (M,), which packet each is decoded from, counted in the order of the file.
    packets : ndarray of int64
        (P, 2), pts and dts of every packet in the order of the file.
    keys : ndarray of int64
        (K,), which packets are keyframes, ascending; those before an edit list's first frame are among them.
    lost : int
        Frames before the first that can be decoded.
    from_order : bool
        Whether the packets have no times, so that frames are known by the order in which they are decoded.
    from_rate : bool
        Whether the decoder has none either, and the times are made from the frame rate.
    special : str or None
        Correction of the first frame beside being turned, "mirrored" or "transparent"; torchcodec does neither.
    """

    pts: NDArray[np.int64]
    times: NDArray[np.float64]
    start: float
    places: NDArray[np.int64]
    packets: NDArray[np.int64]
    keys: NDArray[np.int64]
    lost: int = 0
    from_order: bool = False
    from_rate: bool = False
    special: str | None = None

    def number_of(self, pts: int | None, counted: int) -> int | None:
        """Return which frame a decoded one is, by its pts, or by how many came before it where there are no times."""
        if self.from_order:
            return counted if counted < len(self.pts) else None
        if pts is None:
            return None
        number = int(np.searchsorted(self.pts, pts))
        return number if number < len(self.pts) and self.pts[number] == pts else None

    def key_before(self, number: int) -> int | None:
        """Return the last keyframe's packet from which a frame can be decoded.

        It comes no later than the frame in the file, and is shown no later: what follows an open group's keyframe in
        the file and is shown before it needs the group before.
        """
        if self.from_order:
            return None
        at = int(np.searchsorted(self.keys, self.places[number], side="right")) - 1
        while at >= 0 and self.packets[self.keys[at], 0] > self.pts[number]:
            at -= 1
        return int(self.keys[at]) if at >= 0 else None


def read_index(path: str | Path, max_seconds: float | None) -> FrameIndex:
    """Read the times of all frames.

    Parameters
    ----------
    path : str or Path
        The file.
    max_seconds : float or None
        Longest that is accepted.

    Returns
    -------
    FrameIndex
        With at least one frame.

    Raises
    ------
    MediaError
        If there are none, fewer than the file says, too many, or none can be decoded; else as `open_media`.
    """
    with open_media(path, max_seconds) as container:
        clock = Clock(container.format.name)
        index = _from_packets(path, container, video_stream(path, container), clock)
    if index is None:
        with open_media(path, max_seconds) as container:
            index = _by_decoding(path, container, video_stream(path, container), clock.shifts)
    if max_seconds is not None and index.times[-1] > max_seconds:
        raise MediaError(f"{path}: lasts {index.times[-1]:.0f} s, longer than the limit of {max_seconds:g} s")
    return index


def _from_packets(path: str | Path, container: Any, stream: Any, clock: Clock) -> FrameIndex | None:
    """Read the index from the packets; None where they have no times, or the clock begins again."""
    # An hour has a hundred thousand frames: plain numbers in arrays, not objects in lists.
    stamps, flags = array("q"), array("b")
    count, first, ends = 0, None, 0.0
    stream.codec_context.thread_count = 1
    hides = stream.codec_context.name in ("vp8", "libvpx")
    for packet in container.demux(*(container.streams if says_duration(container) or clock.watches else [stream])):
        clock.shift(packet)
        ends = max(ends, packet_end(packet))
        if packet.stream.index != stream.index:
            continue
        if packet.size:
            stamps.extend(
                (MISSING if packet.pts is None else packet.pts, MISSING if packet.dts is None else packet.dts)
            )
            # VP8 marks frames that are only there to be referred to.
            unseen = packet.is_discard or (hides and not memoryview(packet)[0] & 0x10)
            flags.append(packet.is_keyframe | unseen << 1)
            if len(flags) > MAX_FRAMES:
                raise MediaError(f"{path}: has more than {MAX_FRAMES:,} frames, the limit")
        # An empty chunk of an AVI is a frame that repeats the one before; the one at the very end is none.
        count += bool(packet.size or packet.dts is not None)
        if first is None:
            first = next(iter(_decoded(packet)), None)
    _check_count(path, container, stream, count)
    check_end(path, container, ends)
    if not flags:
        raise MediaError(f"{path}: the video stream has no frames")
    if first is None:
        raise MediaError(f"{path}: no frame of its video can be decoded")
    packets, marks = np.frombuffer(stamps, dtype=np.int64).reshape(-1, 2), np.frombuffer(flags, dtype=np.int8)
    shown = np.flatnonzero(marks & 2 == 0)
    # An AVI has no pts, and what FFmpeg makes of its dts is wrong where frames are shown in another order.
    guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
    if len(clock.shifts) > 1 or guessed or first.pts is None or (packets[shown, 0] == MISSING).any():
        return None
    pts, at = np.unique(packets[shown, 0], return_index=True)
    lost = int(np.searchsorted(pts, first.pts))
    if lost == len(pts):
        return None
    pts, places = pts[lost:], shown[at[lost:]]
    base = float(stream.time_base or 1)
    keys = np.flatnonzero(marks & 1)
    times, start = (pts - pts[0]) * base, float(pts[0] * base)
    return FrameIndex(pts, times, start, places, packets, keys, lost, special=special_of(first))


def _by_decoding(path: str | Path, container: Any, stream: Any, shifts: list[float]) -> FrameIndex:
    """Decode everything once: frames in the order they are shown, at the decoder's times or at the file's rate."""
    stream.codec_context.thread_type = "AUTO"
    stamps = array("q")
    for packet in container.demux(stream):
        for frame in _decoded(packet):
            stamps.extend(MISSING if stamp is None else stamp for stamp in (frame.pts, frame.dts))
            if len(stamps) > 2 * MAX_FRAMES:
                raise MediaError(f"{path}: has more than {MAX_FRAMES:,} frames, the limit")
    if not stamps:
        raise MediaError(f"{path}: no frame of its video can be decoded")
    base = float(stream.time_base or 1)
    said = np.frombuffer(stamps, dtype=np.int64).reshape(-1, 2).T
    # As FFmpeg guesses: the dts are of the packets that set frames free, which comes to the same as their pts.
    seconds = next(
        (found for found in (_ascending(_moved(one, base, shifts)) for one in said) if found is not None), None
    )
    from_rate, order = seconds is None, np.arange(said.shape[1])
    if seconds is None:
        seconds = order / float(stream.average_rate or stream.guessed_rate or stream.base_rate or _RATE)
    start = 0.0 if from_rate else float(seconds[0])
    nothing = np.empty((0, 2), np.int64)
    return FrameIndex(order, seconds - seconds[0], start, order, nothing, order[:0], 0, True, from_rate)


def _moved(stamps: NDArray[np.int64], base: float, shifts: list[float]) -> NDArray[np.float64]:
    """Return seconds; every new beginning of the clock is moved to the end before it.

    A missing time stamp is NaN. Frames come in the order they are shown, so that a clock that goes
    back was set anew.
    """
    seconds = np.where(stamps == MISSING, np.nan, stamps * base)
    if len(shifts) > 1:
        known = np.flatnonzero(stamps != MISSING)
        jumps = np.diff(seconds[known])
        for part, at in enumerate(np.flatnonzero((jumps < 0) | (jumps > FORTH))[: len(shifts) - 1], 1):
            seconds[known[at + 1] :] += shifts[part] - shifts[part - 1]
    return seconds


def _ascending(seconds: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return seconds where all ascend, those that are missing evenly among and after the others; else None."""
    known = np.flatnonzero(~np.isnan(seconds))
    if 2 * len(known) < len(seconds) + 1 or known[0] != 0 or (np.diff(seconds[known]) <= 0).any():
        return None
    step = float(np.median(np.diff(seconds[known]) / np.diff(known))) if len(known) > 1 else 0.0
    filled = np.interp(np.arange(len(seconds)), known, seconds[known])
    # The last frames come out of the decoder when there are no more packets to take times from.
    filled[known[-1] :] += step * np.arange(len(seconds) - known[-1])
    return filled


def _decoded(packet: Any) -> list[Any]:
    """Decode a packet; what fails gives nothing, and the decoder is not given an empty packet that is not the last."""
    from av.error import FFmpegError

    if packet.size == 0 and packet.dts is not None:
        return []
    try:
        return list(packet.decode())
    except FFmpegError:
        return []


def says_duration(container: Any) -> bool:
    """Whether the end of all streams must be compared with the file's head, since nothing else gives it."""
    return container.format.name in _SAY_DURATION


def check_end(path: str | Path, container: Any, ends: float) -> None:
    """Refuse a file whose last packet of any stream ends clearly before its head says.

    Raises
    ------
    MediaError
        If it was cut off.
    """
    said = duration_of(container)
    if said is not None and says_duration(container) and said - ends > max(MISSING_SECONDS, MISSING_SHARE * said):
        raise MediaError(f"{path}: the file is cut off: {ends:.1f} of {said:.1f} s are in it")


def packet_end(packet: Any) -> float:
    """Return when a packet is over on the file's clock, in seconds; 0 where it does not say."""
    stamp, base = packet.pts, packet.time_base
    return 0.0 if stamp is None or base is None else in_seconds(stamp + (packet.duration or 0), base)


def _check_count(path: str | Path, container: Any, stream: Any, count: int) -> None:
    """Refuse a file with fewer frames than its head says."""
    # An index that an edit list shortened counts what is left of it. An AVI counts empty chunks, too, which FFmpeg
    # leaves out; it has given its size already.
    entries = len(stream.index_entries) if container.format.name.startswith("mov") else 0
    expected = 0 if container.format.name == "avi" else entries or stream.frames
    if expected and count < expected:
        raise MediaError(f"{path}: the file is cut off: {count} of {expected} frames are in it")
