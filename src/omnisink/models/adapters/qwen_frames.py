"""Choice and scaling of frames for Qwen models: the rules of `qwen-omni-utils` and `qwen-vl-utils`, on our reader.

Their functions decode the file themselves and keep no times, so the rules are restated here; a test compares the
result with theirs on a real file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError

#: Frames that make one temporal step.
FACTOR = 2


@dataclass(frozen=True)
class QwenFrames:
    """Two frames a second, evenly spaced over all frames by number, an even count.

    Parameters
    ----------
    fps : float
        Frames a second.
    least, most : int
        Bounds of the count.
    """

    fps: float = 2.0
    least: int = 4
    most: int = 768

    def select(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Pick frames as `smart_nframes` counts them and `linspace` spreads them."""
        total = len(times)
        if total == 1:  # A still picture is a video of two equal frames.
            return np.zeros(FACTOR, dtype=np.int64)
        count = total / average_rate(times) * self.fps
        count = min(max(count, self.least), self.most, total)
        even = max(FACTOR, math.floor(count / FACTOR) * FACTOR)
        return np.linspace(0, total - 1, even).round().astype(np.int64)


def average_rate(times: NDArray[np.float64]) -> float:
    """Return frames a second; each frame lasts, the last as long as the mean of the others."""
    return (len(times) - 1) / float(times[-1] - times[0]) if len(times) > 1 else 1.0


def smart_size(height: int, width: int, factor: int, least: float, most: float) -> tuple[int, int]:
    """Return the size nearest to a frame's whose sides are multiples of `factor` and whose area is within bounds.

    Raises
    ------
    OmnisinkError
        If one side is more than 200 times the other.
    """
    if max(height, width) > 200 * min(height, width):
        raise OmnisinkError(f"a frame of {width} x {height} pixels is too long: one side is over 200 times the other")
    high, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
    if high * wide > most:
        shrink = math.sqrt(height * width / most)
        high, wide = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif high * wide < least:
        grow = math.sqrt(least / (height * width))
        high, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return high, wide


def scale(frames: NDArray[np.uint8], factor: int, least: float, most: float) -> Any:
    """Scale frames as the utilities do: bicubic, antialiased.

    Parameters
    ----------
    frames : ndarray of uint8
        (N, H, W, 3).
    factor, least, most : int
        See `smart_size`.

    Returns
    -------
    Tensor
        (N, 3, H', W') float32, values 0 to 255.
    """
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    size = smart_size(frames.shape[1], frames.shape[2], factor, least, most)
    return resize(pixels, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True).float()


def pixel_bounds(processor: Any, frames: int, context: int = 128_000) -> tuple[int, int]:
    """Return the least and most pixels of a frame.

    The utilities' bounds are 128 and 768 tokens, and an even share of the context for long videos. Where the
    checkpoint's own video processor allows less than theirs, it was made for small pictures, and its bounds hold.
    """
    side = processor.video_processor.patch_size * processor.video_processor.merge_size
    area, size = side * side, processor.video_processor.size
    least, most = 128 * area, 768 * area
    if size["longest_edge"] < most:
        return int(size["shortest_edge"]), int(size["longest_edge"])
    share = context * area * 0.9 / frames * FACTOR
    return least, int(max(min(most, share), int(least * 1.05)))
