"""Frames through torchcodec, where it is installed and asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.decoding import Decoded
from omnisink.media.frames import FrameIndex

#: Frames that are decoded at once, before they are scaled down.
_BATCH = 8
#: By how much the times of both decoders may differ, in seconds; a millisecond is the tick of some containers.
_SAME = 0.002


def decode_with_torchcodec(
    path: str | Path, stream: int, index: FrameIndex, chosen: NDArray[np.int64], size: tuple[int, int]
) -> Decoded:
    """Decode the chosen frames.

    Parameters
    ----------
    path : str or Path
        The file.
    stream : int
        Number of the stream.
    index : FrameIndex
        Index of the stream's frames.
    chosen : ndarray of int64
        (N,) frames, as `FrameChoice.select` returns them.
    size : tuple of int and int
        Width and height at which frames are kept, before they are turned.

    Returns
    -------
    Decoded
        Frames of the times in the index.

    Raises
    ------
    MediaError
        If torchcodec or the FFmpeg libraries it needs are not installed, it cannot decode the file, or it has frames
        of other times.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise MediaError(f"the torchcodec backend cannot be used on this machine: {_first_line(error)}") from None
    if index.special is not None:
        raise MediaError(f"{path}: its frames are {index.special}, which torchcodec passes over; use the pyav backend")
    pixels: NDArray[np.uint8] | None = None
    try:
        # A whole path: FFmpeg takes what stands before a colon for a protocol.
        decoder = VideoDecoder(
            str(Path(path).resolve()), stream_index=stream, dimension_order="NHWC", seek_mode="exact"
        )
        rotation = round(decoder.metadata.rotation or 0) % 360
        turned = rotation % 180 != 0
        for at in range(0, len(chosen), _BATCH):
            part = chosen[at : at + _BATCH]
            batch = _frames_at(decoder, index, part)
            off = np.abs(batch.pts_seconds.numpy() - index.start - index.times[part]).max()
            if off > _SAME:
                raise MediaError(f"{path}: torchcodec has frames of other times, by {off:.3f} s; use the pyav backend")
            frames = _scaled(batch.data.numpy(), size[::-1] if turned else size)
            if pixels is None:
                pixels = np.empty((len(chosen), *frames.shape[1:]), dtype=np.uint8)
            pixels[at : at + _BATCH] = frames
    except (RuntimeError, ValueError, IndexError) as error:
        raise MediaError(f"{path}: torchcodec cannot decode it; use the pyav backend: {_first_line(error)}") from None
    assert pixels is not None
    return Decoded(pixels, 0, rotation, turned)


def _frames_at(decoder: Any, index: FrameIndex, part: NDArray[np.int64]) -> Any:
    if len(decoder) == len(index.times):
        return decoder.get_frames_at(indices=[int(i) for i in part])
    # It counts frames otherwise where a file begins with some that cannot be decoded.
    metadata = decoder.metadata
    times = np.clip(index.start + index.times[part] + _SAME, metadata.begin_stream_seconds, None)
    return decoder.get_frames_played_at(seconds=[float(t) for t in times])


def _scaled(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if (pixels.shape[2], pixels.shape[1]) == size:
        return pixels
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX)) for p in pixels])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
