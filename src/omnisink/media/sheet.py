"""A contact sheet: the kept frames of a clip in one picture, each with its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError

_GAP, _LABEL = 6, 16


def contact_sheet(
    frames: NDArray[np.uint8], times: NDArray[np.float64], path: str | Path, columns: int = 4, side: int = 160
) -> None:
    """Write frames as one picture.

    Parameters
    ----------
    frames : ndarray of uint8
        (N, H, W, 3), RGB.
    times : ndarray of float64
        (N,), seconds, written below the frames.
    path : str or Path
        A PNG or JPEG file.
    columns : int
        Frames in a row.
    side : int
        Longest side of a frame on the sheet, in pixels.

    Raises
    ------
    MediaError
        If the file cannot be written.
    """
    from PIL import Image, ImageDraw

    height, width = frames.shape[1:3]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    cell = (size[0] + _GAP, size[1] + _GAP + _LABEL)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), (250, 250, 250))
    pen = ImageDraw.Draw(sheet)
    for i, (frame, time) in enumerate(zip(frames, times, strict=True)):
        left, top = _GAP + i % columns * cell[0], _GAP + i // columns * cell[1]
        sheet.paste(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS), (left, top))
        pen.text((left, top + size[1] + 2), f"{time:.2f} s", fill=(40, 40, 40))
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: the contact sheet cannot be written: {error}") from None
