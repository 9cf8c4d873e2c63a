"""Turning stored frames upright."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def display_matrix(side_data: bytes | None) -> tuple[int, int, int, int] | None:
    """Return a, b, c, d of a display matrix, by which a stored point (x, y) is shown at (a x + c y, b x + d y).

    Parameters
    ----------
    side_data : bytes or None
        Nine integers of four bytes in the machine's order, as FFmpeg keeps them.

    Returns
    -------
    tuple of int or None
        None where there is no matrix, or it changes nothing.
    """
    if side_data is None or len(side_data) < 36:
        return None
    a, b, _, c, d = (int(n) for n in np.frombuffer(side_data[:20], dtype=np.int32))
    return None if b == c == 0 and a >= 0 and d >= 0 else (a, b, c, d)


def turn(pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Turn and mirror a frame, (H, W, 3), by the multiple of 90 degrees that a display matrix is nearest to."""
    a, b, c, d = matrix
    if swaps(matrix):
        pixels = pixels.transpose(1, 0, 2)
        right, down = c, b
    else:
        right, down = a, d
    if right < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return pixels


def swaps(matrix: tuple[int, int, int, int] | None) -> bool:
    """Tell whether width and height change places."""
    return matrix is not None and abs(matrix[1]) + abs(matrix[2]) > abs(matrix[0]) + abs(matrix[3])
