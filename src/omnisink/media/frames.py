"""Frames of a video stream: an index of all, and the pixels of a few.

The index is read from the packets, so every frame has its true time, also where the rate varies, and nothing is
decoded for it. Then only what leads to the wanted frames is decoded: between two wanted frames the reader jumps to the
keyframe before the second wherever that is nearer.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError

if TYPE_CHECKING:
    import av.container
    import av.video

#: A jump empties the decoder's pipeline, which is worth it from about so many frames on.
_WORTH_A_JUMP = 12


@dataclass(frozen=True)
class FrameIndex:
    """Every frame of a stream, nothing decoded.

    Attributes
    ----------
    pts : ndarray of int64
        (M,), ascending, in units of the stream's time base.
    times : ndarray of float64
        (M,), seconds since the first frame.
    start : float
        Time of the first frame on the file's clock, in seconds.
    places : ndarray of int64
        (M,), how many frames are decoded before each.
    keys : ndarray of int64
        (K,), which of them are keyframes, ascending.
    """

    pts: NDArray[np.int64]
    times: NDArray[np.float64]
    start: float
    places: NDArray[np.int64]
    keys: NDArray[np.int64]

    def key_before(self, pts: int) -> int | None:
        """Return which frame is the last keyframe that is shown no later than another."""
        number = int(np.searchsorted(self.pts[self.keys], pts, side="right"))
        return int(self.keys[number - 1]) if number else None


def read_index(name: str, container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> FrameIndex:
    """Read the times of all frames from the packets.

    Raises
    ------
    MediaError
        If there are none, or fewer than the file says.
    """
    # An hour has a hundred thousand frames: plain numbers in arrays, not objects in lists.
    stamps, keyframes = array("q"), array("b")
    count = 0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        count += 1
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or packet.is_discard:  # Discarded by the edit list: decoded, but never shown.
            continue
        stamps.append(stamp)
        keyframes.append(packet.is_keyframe)
    if not stamps and count == 1:  # A still image has no time.
        stamps.append(0)
        keyframes.append(True)
    if not stamps:
        raise MediaError(f"{name}: the video stream has no frames")
    if stream.frames and count < stream.frames:
        raise MediaError(f"{name}: the file is cut off: {count} of {stream.frames} frames are in it")
    base = float(stream.time_base or 1)
    pts, places = np.unique(np.frombuffer(stamps, dtype=np.int64), return_index=True)
    keys = np.flatnonzero(np.frombuffer(keyframes, dtype=np.int8)[places])
    return FrameIndex(pts, (pts - pts[0]) * base, float(pts[0] * base), places, keys)


def decode(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    index: FrameIndex,
    wanted: Sequence[int],
    damage: list[int],
    jump: bool = True,
) -> Iterator[tuple[int, av.video.frame.VideoFrame]]:
    """Decode some frames.

    Parameters
    ----------
    container, stream
        Open for reading.
    index : FrameIndex
        Of the stream.
    wanted : sequence of int
        The pts of the frames, ascending, each once.
    damage : list of int
        Its only element counts what could not be decoded without errors.
    jump : bool
        Jump to keyframes. Without it everything up to the last wanted frame is decoded.

    Yields
    ------
    (int, VideoFrame)
        The wanted pts, and its frame, or the nearest before it where it could not be decoded.
    """
    first = int(index.pts[index.keys[0] if len(index.keys) else 0])
    container.seek(first, stream=stream, backward=True)
    reader = _Reader(container, stream, damage)
    place = 0  # How many frames the reader is past, in the order of decoding.
    shown: Any = None
    for pts in wanted:
        key = index.key_before(pts) if jump else None
        jumped = key is not None and index.places[key] - place > _WORTH_A_JUMP
        if jumped:
            reader.jump(int(index.pts[key]))
            shown = None
        while shown is None or shown.pts is None or shown.pts < pts:
            following = reader.next()
            if following is None:
                break
            if following.pts is not None and following.pts > pts:
                if shown is None and jumped:
                    # The container jumped too far; from the beginning nothing can be missed.
                    reader.jump(first)
                    jumped = False
                    continue
                # The wanted frame itself did not come out of the decoder.
                damage[0] += 1
                reader.hold(following)
                shown = shown or following
                break
            shown = following
        if shown is None:
            return
        place = int(index.places[np.searchsorted(index.pts, pts)])
        yield pts, shown


class _Reader:
    """Frames of a stream in the order they are shown, errors counted."""

    def __init__(self, container: Any, stream: Any, damage: list[int]) -> None:
        self._container, self._stream, self._damage = container, stream, damage
        self._frames = self._run()
        self._held: list[Any] = []

    def _run(self) -> Iterator[Any]:
        from av.error import FFmpegError

        for packet in self._container.demux(self._stream):
            try:
                decoded = packet.decode()
            except FFmpegError:
                self._damage[0] += 1
                continue
            for frame in decoded:
                self._damage[0] += bool(frame.is_corrupt)
                yield frame

    def next(self) -> Any:
        return self._held.pop() if self._held else next(self._frames, None)

    def hold(self, frame: Any) -> None:
        """Keep a frame that came too early for the next call."""
        self._held.append(frame)

    def jump(self, stamp: int) -> None:
        """Go on from the keyframe at a timestamp."""
        self._frames.close()  # type: ignore[attr-defined]
        self._held.clear()
        self._container.seek(stamp, stream=self._stream, backward=True)
        self._frames = self._run()


class Converter:
    """Turns decoded frames into upright RGB.

    One is kept for all frames of a clip, and it works on one thread: setting a conversion up takes a hundred times as
    long as converting a frame, most of it for threads.

    Parameters
    ----------
    max_side : int or None
        Frames are scaled down so that no side is longer.
    """

    def __init__(self, max_side: int | None) -> None:
        from av.video.reformatter import VideoReformatter

        self._max_side = max_side
        self._convert: Any = VideoReformatter().reformat

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Return a frame as (H, W, 3), a view of memory of its own."""
        size: dict[str, Any] = {}
        if self._max_side is not None and max(frame.width, frame.height) > self._max_side:
            scale = self._max_side / max(frame.width, frame.height)
            size = {"width": max(1, round(frame.width * scale)), "height": max(1, round(frame.height * scale))}
            size["interpolation"] = "AREA"
        turned = rotation_of(frame)
        converted = self._convert(frame, format="rgb24", threads=1, **size)
        plane = converted.planes[0]
        # Rows may be padded; `to_ndarray` would copy them once more.
        rows = np.frombuffer(plane, dtype=np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width * 3]
        pixels = rows.reshape(plane.height, plane.width, 3)
        return np.rot90(pixels, turned // 90) if turned else pixels


def rotation_of(frame: Any) -> int:
    """Return how far a stored frame has to be turned anticlockwise, in degrees: 0, 90, 180 or 270."""
    return round(frame.rotation / 90) * 90 % 360
