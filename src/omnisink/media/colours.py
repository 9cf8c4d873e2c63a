"""Pictures of every mode to RGB of eight bits, as a viewer shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

#: Modes whose one channel is wider than eight bits.
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def on_white(image: Image.Image) -> Image.Image:
    """Put an RGBA picture on white, as viewers and Qwen's own utility do; what is transparent has no colour."""
    from PIL import Image

    ground = Image.new("RGB", image.size, (255, 255, 255))
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded picture to RGB.

    Parameters
    ----------
    image : Image
        Of any mode. Transparency of every kind, by a channel or by a colour that is named as transparent, becomes
        white.

    Returns
    -------
    Image
        Mode RGB.

    Raises
    ------
    ValueError
        If its samples are not numbers, or Pillow knows no way to RGB.
    """
    if image.mode in _DEEP:
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale one wide channel to eight bits; Pillow's own conversion cuts off all that is above 255."""
    from PIL import Image

    values: NDArray[np.float32] = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("it holds samples that are not numbers")
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        # By convention black is 0 and white is 1. What leaves that range, as measurements do, is shown from its lowest
        # to its highest value.
        black, white = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    else:
        # Two bytes reach to 65,535. Four bytes are signed here, and nearly always hold what would fit into two or one.
        widest = 65_535.0 if image.mode != "I" or high > 255 else 255.0
        black, white = (0.0, widest) if low >= 0 and high <= widest else (low, high)
    scaled = (values - black) * (255.0 / max(white - black, 1e-30))
    out = Image.fromarray(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8))
    named = image.info.get("transparency")
    if isinstance(named, int):
        # The transparent grey of a 16-bit PNG.
        out.putalpha(Image.fromarray(np.where(values == named, 0, 255).astype(np.uint8)))
    return out
