"""The size at which frames are kept."""

from __future__ import annotations

from math import sqrt


def kept_size(width: int, height: int, count: int, max_side: int | None, max_pixels: int | None) -> tuple[int, int]:
    """Return the size at which frames are kept, never larger than they are.

    Parameters
    ----------
    width, height : int
        Size of the stored frames.
    count : int
        Number of frames that are kept.
    max_side : int or None
        No side is to be longer.
    max_pixels : int or None
        All kept frames together are to have no more pixels.

    Returns
    -------
    tuple of int and int
        Width and height, each at least 1.
    """
    scale = 1.0
    if max_side is not None:
        scale = min(scale, max_side / max(width, height))
    if max_pixels is not None and width * height * count * scale * scale > max_pixels:
        scale = sqrt(max_pixels / (width * height * count))
    if scale == 1.0:
        return width, height
    return max(1, round(width * scale)), max(1, round(height * scale))
