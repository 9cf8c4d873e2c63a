"""The pixels of a few frames: only what leads to them is decoded.

Between two wanted frames the reader jumps to the keyframe before the second wherever that is nearer. Where a jump
lands is read from the packets that follow; a container that cannot jump there is read from its beginning instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.convert import Converter
from omnisink.media.files import file_faults, open_media
from omnisink.media.frames import MISSING, FrameIndex
from omnisink.media.orientation import swaps
from omnisink.media.streams import video_stream

#: A jump empties the decoder's pipeline, which pays off from about this number of frames on.
_WORTH_A_JUMP = 12
#: Frames of more pixels than this are decoded on one thread, since every thread holds some.
_LARGE = 2**24
#: If fewer than one frame in this number is wanted, nearly every one is jumped to.
_SPARSE = 200


@dataclass(frozen=True)
class Decoded:
    """Chosen frames.

    Attributes
    ----------
    pixels : ndarray of uint8
        (N, H, W, 3), RGB, upright.
    damaged : int
        Frames that could not be decoded, or only with errors, among those that had to be decoded.
    rotation : int
        Degrees anticlockwise by which the stored frames were turned.
    turned : bool
        Whether width and height changed places.
    """

    pixels: NDArray[np.uint8]
    damaged: int
    rotation: int
    turned: bool


def decode_chosen(
    path: str | Path, index: FrameIndex, chosen: NDArray[np.int64], size: tuple[int, int], jump: bool
) -> Decoded:
    """Decode the chosen frames into one array that is made once.

    Parameters
    ----------
    path : str or Path
        The file.
    index : FrameIndex
        Index of the video's frames.
    chosen : ndarray of int64
        (N,) frames, as `FrameChoice.select` returns them.
    size : tuple of int and int
        Width and height at which frames are kept, before they are turned.
    jump : bool
        Jump to keyframes where that is nearer.

    Raises
    ------
    MediaError
        If the first wanted frame or most of them cannot be decoded, or their size changes.
    """
    # Threads decode several frames at once and hold them all, which is for nothing where every frame is jumped to.
    threads = 1 if len(index.pts) > _SPARSE * len(chosen) else 0
    convert = Converter(size)
    stored: tuple[int, int] | None = None
    pixels: NDArray[np.uint8] | None = None
    unique, places = np.unique(chosen, return_inverse=True)

    def keep(number: int, frame: Any) -> None:
        nonlocal pixels, stored
        stored = stored or (frame.width, frame.height)
        if (frame.width, frame.height) != stored:
            was, now = (f"{width} x {height}" for width, height in (stored, (frame.width, frame.height)))
            raise MediaError(f"{path}: its frames change size from {was} to {now}")
        rgb = convert(frame)
        if pixels is None:
            pixels = np.empty((len(chosen), *rgb.shape), dtype=np.uint8)
        for place in np.flatnonzero(places == number):
            pixels[place] = rgb

    # One frame is converted while the next are decoded; a second would wait in memory for nothing.
    with FrameReader(path, index, threads, jump) as reader, ThreadPoolExecutor(1) as worker, file_faults(path):
        kept: Future[None] | None = None
        for number, frame in enumerate(reader.decode([int(n) for n in unique])):
            if kept is not None:
                kept.result()
            if frame is None:
                raise MediaError(f"{path}: no frame of its video can be decoded")
            kept = worker.submit(keep, number, frame)
        if kept is not None:
            kept.result()
    if reader.missing > len(unique) // 2:
        raise MediaError(
            f"{path}: the file is cut off or damaged: {reader.missing} of {len(unique)} frames cannot be decoded"
        )
    assert pixels is not None
    return Decoded(pixels, reader.errors + reader.missing, convert.rotation, swaps(convert.matrix))


class FrameReader:
    """Decodes frames of a file by their numbers.

    Parameters
    ----------
    path : str or Path
        The file.
    index : FrameIndex
        Index of the video's frames.
    threads : int
        Threads of the decoder; 0 leaves the number to FFmpeg.
    jump : bool
        Jump to keyframes. Without it everything up to the last wanted frame is decoded.

    Attributes
    ----------
    errors : int
        Packets and frames that were decoded with errors, or not at all.
    missing : int
        Wanted frames that did not come out of the decoder.
    """

    def __init__(self, path: str | Path, index: FrameIndex, threads: int, jump: bool) -> None:
        self._path, self._index, self._threads, self._jump = path, index, threads, jump
        self._files = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._place = 0
        self._held: tuple[int, Any] | None = None
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self.errors = self.missing = 0

    def __enter__(self) -> FrameReader:
        self._restart()
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def decode(self, wanted: Sequence[int]) -> Iterator[Any]:
        """Decode some frames.

        Parameters
        ----------
        wanted : sequence of int
            Their numbers in the index, ascending, each once.

        Yields
        ------
        VideoFrame or None
            For every wanted number its frame, or the nearest before it that could be decoded; None where there is
            none.
        """
        shown: tuple[int, Any] | None = None
        for number in wanted:
            jumped = self._worth_a_jump(number)
            if jumped:
                shown = None
            shown = self._advance(number, shown)
            if jumped and shown is None:
                # The keyframe that was jumped to is damaged; what is before it can be had from the beginning.
                self._restart()
                shown = self._advance(number, None)
            if shown is None or shown[0] != number:
                self.missing += 1
            yield None if shown is None else shown[1]

    def _advance(self, number: int, shown: tuple[int, Any] | None) -> tuple[int, Any] | None:
        """Decode up to a frame; returns it, or the nearest before it."""
        while shown is None or shown[0] < number:
            following = self._held or next(self._frames, None)
            self._held = None
            if following is None:
                break
            if following[0] > number:
                self._held = following
                break
            shown = following
        return shown

    def _worth_a_jump(self, number: int) -> bool:
        """Jump to the keyframe before a frame, if that is nearer; returns whether it did."""
        key = self._index.key_before(number) if self._jump else None
        if key is None or key - self._place <= _WORTH_A_JUMP:
            return False
        self._frames, self._held = iter(()), None  # Closes what is running before the container moves.
        if not self._land(key):
            self._jump = False
            self._restart()
        return True

    def _land(self, key: int) -> bool:
        """Go to a keyframe; False where the container does not get there."""
        from av.error import FFmpegError

        pts, dts = (int(n) for n in self._index.packets[key])
        dts = pts if dts == MISSING else dts
        try:
            self._container.seek(min(pts, dts), stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            for packet in packets:
                if packet.size and packet.pts == pts and packet.is_keyframe:
                    self._frames = self._run(packets, key, packet)
                    return True
                stamp = packet.pts if packet.dts is None else packet.dts
                if stamp is not None and stamp > dts:
                    return False
        except FFmpegError:
            return False
        return False

    def _restart(self) -> None:
        """Go back to the beginning of the file, which a seek does not reach in every container."""
        self._frames, self._held, self._place = iter(()), None, 0
        self._files.close()
        self._container = self._files.enter_context(open_media(self._path, None))
        self._stream = video_stream(self._path, self._container)
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = 1 if context.width * context.height > _LARGE else self._threads
        self._frames = self._run(self._container.demux(self._stream), 0, None)

    def _run(self, packets: Iterator[Any], place: int, first: Any) -> Iterator[tuple[int, Any]]:
        """Decode packet after packet; yields frames in the order they are shown, with their numbers."""
        from av.error import FFmpegError

        count = 0
        while (packet := first or next(packets, None)) is not None:
            first = None
            if packet.size:
                self._place, place = place, place + 1
            elif packet.dts is not None:
                continue
            try:
                frames = packet.decode()
            except FFmpegError:
                self.errors += 1
                continue
            for frame in frames:
                self.errors += bool(frame.is_corrupt)
                number = self._index.number_of(frame.pts, count)
                count += 1
                if number is not None:
                    yield number, frame
