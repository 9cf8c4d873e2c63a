"""Decoded frames to upright RGB of the size at which they are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.media.orientation import display_matrix, turn


class Converter:
    """Turns decoded frames into upright RGB.

    One is kept for all frames of a clip, and it works on one thread: setting a conversion up takes a hundred times as
    long as converting a frame, most of it for threads.

    Parameters
    ----------
    size : tuple of int and int
        Width and height at which frames are kept, before they are turned; never larger than the frames.

    Attributes
    ----------
    matrix : tuple of int or None
        The display matrix of the first frame, by which all are turned.
    rotation : int
        Degrees anticlockwise by which it turns: 0, 90, 180 or 270.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        from av.video.reformatter import VideoReformatter

        self._size, self._first = size, True
        self._convert: Any = VideoReformatter().reformat
        self.matrix: tuple[int, int, int, int] | None = None
        self.rotation = 0

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Return a frame as (H, W, 3), a view of memory of its own; what is transparent is put on white."""
        if self._first:
            self._first = False
            self.rotation = round(frame.rotation / 90) * 90 % 360
            self.matrix = display_matrix(_matrix_of(frame))
        width, height = self._size
        size: dict[str, Any] = {}
        if (frame.width, frame.height) != self._size:
            size = {"width": width, "height": height, "interpolation": "AREA"}
        transparent = _is_transparent(frame)
        converted = self._convert(frame, format="rgba" if transparent else "rgb24", threads=1, **size)
        plane, channels = converted.planes[0], 4 if transparent else 3
        # Rows may be padded; `to_ndarray` would copy them once more.
        rows = np.frombuffer(plane, dtype=np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width * channels]
        pixels = rows.reshape(plane.height, plane.width, channels)
        if transparent:
            from PIL import Image

            from omnisink.media.colours import on_white

            pixels = np.asarray(on_white(Image.fromarray(pixels)))
        return pixels if self.matrix is None else turn(pixels, self.matrix)


def special_of(frame: Any) -> str | None:
    """Return what a decoded frame needs beside being turned: "mirrored", "transparent", or None."""
    matrix = display_matrix(_matrix_of(frame))
    if matrix is not None and matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0:
        return "mirrored"
    return "transparent" if _is_transparent(frame) else None


def _is_transparent(frame: Any) -> bool:
    return any(part.is_alpha for part in frame.format.components) or frame.format.name == "pal8"


def _matrix_of(frame: Any) -> bytes | None:
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # Side data of a kind that this PyAV does not know; it lies beside the matrix.
        return None
    return None if found is None else bytes(found)
