"""The pictures of a scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.synthav.scene import Scene, Thing
from omnisink.synthav.vocabulary import COLOURS

#: Side of the square frames in pixels, and frames in a second.
SIDE = 224
FPS = 8
_EDGE = (25, 25, 25)
_BAR = (90, 90, 95)


def draw(scene: Scene, times: NDArray[np.float64], side: int = SIDE) -> NDArray[np.uint8]:
    """Draw the frames of a scene.

    Parameters
    ----------
    scene : Scene
        Scene to draw.
    times : ndarray of float
        Seconds.
    side : int
        Width and height in pixels.

    Returns
    -------
    ndarray of uint8
        (len(times), side, side, 3), RGB.
    """
    from PIL import Image, ImageDraw

    background = Image.fromarray(texture(scene.texture, side))
    frames = np.empty((len(times), side, side, 3), dtype=np.uint8)
    for i, time in enumerate(times):
        frame = background.copy()
        canvas = ImageDraw.Draw(frame)
        for thing in scene.things:
            if thing.visible(float(time)):
                _shape(canvas, thing, float(time), side)
        if scene.bar is not None:
            left = scene.bar * side
            canvas.rectangle((left, 0, left + 0.14 * side, side), fill=_BAR)
        frames[i] = np.asarray(frame)
    return frames


def texture(seed: int, side: int) -> NDArray[np.uint8]:
    """Make a background of low contrast: plain, graded, striped, chequered or grainy, in a greyish tint."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(95, 175) + rng.uniform(-14, 14, size=3)
    y, x = np.mgrid[0:side, 0:side] / side
    kind = rng.integers(5)
    if kind == 0:
        wave = np.zeros((side, side))
    elif kind == 1:
        wave = 2 * (x * np.cos(a := rng.uniform(0, 2 * np.pi)) + y * np.sin(a)) - 1
    elif kind == 2:
        angle = rng.uniform(0, np.pi)
        wave = np.sin(2 * np.pi * rng.uniform(3, 9) * (x * np.cos(angle) + y * np.sin(angle)))
    elif kind == 3:
        n = int(rng.integers(4, 9))
        wave = ((x * n).astype(int) + (y * n).astype(int)) % 2 * 2.0 - 1
    else:
        small = int(rng.integers(8, 24))
        grain = rng.uniform(-1, 1, size=(small, small))
        wave = grain[(y * small).astype(int), (x * small).astype(int)]
    return np.clip(base + rng.uniform(8, 20) * wave[..., None], 0, 255).astype(np.uint8)


def _shape(canvas: Any, thing: Thing, time: float, side: int) -> None:
    cx, cy = (v * side for v in thing.centre(time))
    r = thing.radius * side
    fill, line = COLOURS[thing.colour], max(1, side // 90)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(cx + r * px, cy + r * py) for px, py in points]

    def polygon(*points: tuple[float, float], colour: tuple[int, int, int] = fill) -> None:
        canvas.polygon(at(*points), fill=colour, outline=_EDGE, width=line)

    def ellipse(left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int] = fill) -> None:
        (a, b), (c, d) = at((left, top), (right, bottom))
        canvas.ellipse((a, b, c, d), fill=colour, outline=_EDGE, width=line)

    if thing.shape == "circle":
        ellipse(-1, -1, 1, 1)
    elif thing.shape == "square":
        polygon((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))
    elif thing.shape == "triangle":
        polygon((0, -1), (1, 0.85), (-1, 0.85))
    elif thing.shape == "star":
        turns = np.arange(10) * np.pi / 5 - np.pi / 2
        radii = np.where(np.arange(10) % 2 == 0, 1.08, 0.45)
        polygon(*[(float(q * np.cos(t)), float(q * np.sin(t))) for t, q in zip(turns, radii, strict=True)])
    elif thing.shape == "bell":
        ellipse(-0.22, 0.55, 0.22, 1.0, _EDGE)
        polygon(
            (-0.25, -0.95), (0.25, -0.95), (0.6, -0.2), (0.65, 0.35), (1, 0.7), (-1, 0.7), (-0.65, 0.35), (-0.6, -0.2)
        )
    elif thing.shape == "drum":
        polygon((-0.85, -0.45), (0.85, -0.45), (0.85, 0.6), (-0.85, 0.6))
        for a in (-0.85, 0.0):
            canvas.line(at((a, -0.4), (a + 0.42, 0.55), (a + 0.85, -0.4)), fill=_EDGE, width=2 * line)
        ellipse(-0.85, -0.75, 0.85, -0.15, (225, 225, 215))
    elif thing.shape == "clock":
        ellipse(-1, -1, 1, 1)
        ellipse(-0.68, -0.68, 0.68, 0.68, (235, 235, 230))
        canvas.line(at((0, -0.5), (0, 0), (0.38, 0.2)), fill=_EDGE, width=2 * line)
    elif thing.shape == "bird":
        polygon((-1.05, -0.1), (-0.5, 0.1), (-0.5, 0.5), (-1.1, 0.45))
        ellipse(-0.75, -0.25, 0.55, 0.75)
        polygon((0.95, -0.5), (1.2, -0.28), (0.9, -0.2), colour=_EDGE)
        ellipse(0.15, -0.85, 0.98, -0.02)
        ellipse(0.55, -0.6, 0.72, -0.43, _EDGE)
