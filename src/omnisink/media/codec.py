"""Frames through torchcodec, where it is installed and asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError


def decode_with_torchcodec(path: str | Path, chosen: NDArray[np.int64], max_side: int | None) -> NDArray[np.uint8]:
    """Decode the chosen frames.

    Parameters
    ----------
    path : str or Path
        A file whose frames have been counted already.
    chosen : ndarray of int64
        (N,) indices, as `FrameChoice.select` returns them.
    max_side : int or None
        Longest side of the frames returned.

    Returns
    -------
    ndarray of uint8
        (N, H, W, 3), RGB, upright.

    Raises
    ------
    MediaError
        If torchcodec or the FFmpeg libraries it needs are not installed, or it cannot decode the file.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise MediaError(f"the torchcodec backend cannot be used on this machine: {line}") from None
    try:
        decoder = VideoDecoder(str(path), dimension_order="NHWC", seek_mode="exact")
        pixels: NDArray[np.uint8] = decoder.get_frames_at(indices=[int(i) for i in chosen]).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        line = str(error).strip().splitlines()[0]
        raise MediaError(f"{path}: torchcodec cannot decode it: {line}") from None
    if max_side is None or max(pixels.shape[1:3]) <= max_side:
        return pixels
    from PIL import Image

    scale = max_side / max(pixels.shape[1:3])
    size = (max(1, round(pixels.shape[2] * scale)), max(1, round(pixels.shape[1] * scale)))
    return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX)) for p in pixels])
