"""The scenes of SynthAV, drawn in many styles.

SynthAV draws polygons with a dark edge on textured backgrounds of low contrast. A tower that has seen nothing else
takes most plain shapes for a circle. Here the same scenes are drawn with other proportions, angles, sizes, colours,
edges, backgrounds, sharpness, noise, frame rates and losses of compression, chosen anew for every clip.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from omnisink.models.smolomni import SIDE
from omnisink.synthav.draw import texture
from omnisink.synthav.scene import Scene, Thing
from omnisink.synthav.vocabulary import COLOURS
from training.clips import frame_times

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
RGB = tuple[int, int, int]

#: Other values that a word for a colour has, beside SynthAV's own.
_SHADES: dict[str, tuple[RGB, ...]] = {
    "red": ((255, 0, 0), (190, 20, 30), (230, 60, 50)),
    "green": ((0, 128, 0), (0, 200, 0), (60, 180, 75), (20, 110, 40)),
    "blue": ((0, 0, 255), (30, 100, 230), (20, 40, 160)),
    "yellow": ((255, 255, 0), (255, 225, 25), (225, 200, 20)),
    "orange": ((255, 165, 0), (255, 127, 14), (230, 115, 20)),
    "purple": ((128, 0, 128), (145, 30, 180), (100, 40, 150)),
    "pink": ((255, 105, 180), (255, 192, 203), (240, 130, 170)),
    "white": ((255, 255, 255), (240, 240, 240)),
}
_RATES = (8, 10, 12, 15, 24, 25, 30)


@dataclass(frozen=True)
class Style:
    """How the clips of one scene are drawn.

    Attributes
    ----------
    canvas : int
        Side of the picture in pixels before it is made as small as the tower sees it.
    fine : int
        Factor by which shapes are drawn larger and then averaged; 1 leaves steps along their outlines.
    edge : tuple of int or None
        Colour of the outlines, or none.
    line : float
        Their width as a share of the picture.
    dark, light : tuple of int
        Colours of the details of bells, drums, clocks and birds.
    quality : int or None
        Quality of a JPEG that stands for a lossy codec, or none.
    """

    canvas: int
    fine: int
    edge: RGB | None
    line: float
    dark: RGB
    light: RGB
    blur: float
    noise: float
    quality: int | None
    rate: int


def _grey(rng: Generator, low: int, high: int) -> RGB:
    value = rng.integers(low, high)
    r, g, b = np.clip(value + rng.integers(-8, 9, size=3), 0, 255)
    return int(r), int(g), int(b)


def _style(rng: Generator) -> Style:
    edge = _grey(rng, 0, 60) if rng.random() < 0.3 else _grey(rng, 200, 250) if rng.random() < 0.1 else None
    return Style(
        canvas=int(rng.choice([112, 160, 224])),
        fine=int(rng.choice([1, 2])),
        edge=edge,
        line=float(rng.uniform(0.004, 0.016)),
        dark=_grey(rng, 5, 60),
        light=_grey(rng, 205, 250),
        blur=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.3 else 0.0,
        noise=float(rng.uniform(1, 10)) if rng.random() < 0.4 else 0.0,
        quality=int(rng.integers(25, 90)) if rng.random() < 0.5 else None,
        rate=int(rng.choice(_RATES)),
    )


def draw_varied(scene: Scene, pair: int, rng: Generator) -> Pixels:
    """Draw two neighbouring frames of a scene in a style of their own.

    Parameters
    ----------
    scene : Scene
        What is drawn. The words for colour, size, motion, number and depth stay right.
    pair : int
        Which of the four pairs of frames.
    rng : Generator
        Chooses the style.

    Returns
    -------
    ndarray of uint8
        (2, 112, 112, 3), RGB.
    """
    from PIL import Image, ImageFilter

    style = _style(rng)
    things = [_Drawn.of(thing, rng) for thing in scene.things]
    background = _background(rng, style.canvas, [thing.fill for thing in things])
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX)
    resample = filters[int(rng.integers(len(filters)))]
    bar = None if scene.bar is None else (scene.bar, float(rng.uniform(0.1, 0.16)), _grey(rng, 60, 120))
    frames = np.empty((2, SIDE, SIDE, 3), dtype=np.uint8)
    for i, time in enumerate(frame_times(style.rate)[2 * pair : 2 * pair + 2]):
        picture = _picture(background, things, float(time), bar, style)
        if style.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(style.blur * style.canvas / SIDE))
        if style.noise:
            grain = rng.normal(0, style.noise, size=(style.canvas, style.canvas, 3))
            picture = Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
        if style.quality is not None:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=style.quality)
            picture = Image.open(file).convert("RGB")
        frames[i] = np.asarray(picture.resize((SIDE, SIDE), resample))
    return frames


def _picture(
    background: object, things: list[_Drawn], time: float, bar: tuple[float, float, RGB] | None, style: Style
) -> object:
    from PIL import Image, ImageDraw

    side = style.canvas * style.fine
    frame = background.resize((side, side))  # type: ignore[attr-defined]
    canvas = ImageDraw.Draw(frame)
    width = max(1, round(style.line * side))
    for thing in things:
        if not thing.thing.visible(time):
            continue
        for points, colour, is_line in thing.parts(time, style):
            placed = [(float(x), float(y)) for x, y in points * side]
            if is_line:
                canvas.line(placed, fill=colour, width=2 * width)
            else:
                canvas.polygon(placed, fill=colour)
                if style.edge is not None:
                    canvas.line([*placed, placed[0], placed[1]], fill=style.edge, width=width, joint="curve")
    if bar is not None:
        left, across, colour = bar
        canvas.rectangle((left * side, 0, (left + across) * side, side), fill=colour)
    return frame if style.fine == 1 else frame.resize((style.canvas, style.canvas), Image.Resampling.BOX)


def _background(rng: Generator, side: int, fills: list[RGB]) -> object:
    """Draw what is behind everything, far enough from the colours of the things to be told from them."""
    from PIL import Image

    while True:
        kind = int(rng.integers(4))
        if kind == 0:
            # One of SynthAV's, with its contrast raised or lowered and another brightness.
            pixels = texture(int(rng.integers(2**31)), side).astype(np.float64)
            pixels = (pixels - pixels.mean()) * rng.uniform(0.3, 1.8) + rng.uniform(60, 200)
        else:
            tint = 12 if rng.random() < 0.7 else 45
            base = rng.uniform(15, 240) + rng.uniform(-tint, tint, size=3)
            if kind == 1:
                pixels = np.broadcast_to(base, (side, side, 3))
            elif kind == 2:
                y, x = np.mgrid[0:side, 0:side] / side - 0.5
                angle = rng.uniform(0, 2 * np.pi)
                slope = x * np.cos(angle) + y * np.sin(angle)
                pixels = base + slope[..., None] * rng.uniform(-90, 90, size=3)
            else:
                # Soft clouds: a few random values, spread out smoothly.
                small = np.clip(base + rng.normal(0, rng.uniform(4, 22), size=(5, 5, 3)), 0, 255).astype(np.uint8)
                cloud = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
                pixels = np.asarray(cloud).astype(np.float64)
        mean = pixels.reshape(-1, 3).mean(0)
        if all(np.linalg.norm(mean - np.array(fill)) > 75 for fill in fills):
            return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class _Drawn:
    """A thing with the proportions, the angle and the shade that this clip gives it."""

    thing: Thing
    fill: RGB
    radius: float
    turn: float
    stretch: tuple[float, float]
    seed: int

    @classmethod
    def of(cls, thing: Thing, rng: Generator) -> _Drawn:
        shades = (COLOURS[thing.colour], COLOURS[thing.colour], *_SHADES[thing.colour])
        shade = np.array(shades[int(rng.integers(len(shades)))]) + rng.integers(-10, 11, size=3)
        r, g, b = np.clip(shade, 0, 255)
        radius = rng.uniform(0.085, 0.135) if thing.size == "small" else rng.uniform(0.175, 0.25)
        return cls(
            fill=(int(r), int(g), int(b)),
            radius=float(radius),
            turn=float(rng.normal(0, 0.12)) if rng.random() < 0.4 else 0.0,
            stretch=(float(rng.uniform(0.92, 1.08)), float(rng.uniform(0.92, 1.08))),
            thing=replace(thing, reach=thing.reach * float(rng.uniform(0.7, 1.15))),
            seed=int(rng.integers(2**31)),
        )

    def parts(self, time: float, style: Style) -> Iterator[tuple[Points, RGB, bool]]:
        """Give what is drawn, from back to front: points as shares of the frame, colour, and whether it is a line."""
        middle = np.array(self.thing.centre(time))
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        rotation = np.array([[cos, -sin], [sin, cos]])
        colours = {"fill": self.fill, "dark": style.dark, "light": style.light}
        for points, colour, is_line in _outline(self.thing.shape, np.random.default_rng(self.seed)):
            yield middle + self.radius * (points * self.stretch) @ rotation.T, colours[colour], is_line


Part = tuple[Points, str, bool]


def _polygon(*points: tuple[float, float], colour: str = "fill") -> Part:
    return np.array(points, dtype=np.float64), colour, False


def _line(*points: tuple[float, float]) -> Part:
    return np.array(points, dtype=np.float64), "dark", True


def _ellipse(x: float, y: float, rx: float, ry: float, colour: str = "fill") -> Part:
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + rx * np.cos(turns), y + ry * np.sin(turns)], axis=1), colour, False


def _outline(shape: str, rng: Generator) -> list[Part]:
    """Return the parts of a shape around the origin, about from -1 to 1, with proportions drawn at random."""

    def near(value: float, by: float = 0.08) -> float:
        return value + float(rng.uniform(-by, by))

    if shape == "circle":
        return [_ellipse(0, 0, near(0.97, 0.05), near(0.97, 0.05))]
    if shape == "square":
        half = near(0.92)
        return [_polygon((-half, -half), (half, -half), (half, half), (-half, half))]
    if shape == "triangle":
        base, foot = near(0.97, 0.12), near(0.82, 0.2)
        return [_polygon((near(0, 0.06), -1), (base, foot), (-base, foot))]
    if shape == "star":
        turns = np.arange(10) * np.pi / 5 - np.pi / 2
        radii = np.where(np.arange(10) % 2 == 0, near(1.05, 0.06), near(0.45, 0.1))
        return [(np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1), "fill", False)]
    if shape == "bell":
        top, waist, shoulder, foot = near(0.25), near(0.62), near(-0.2, 0.12), near(0.7, 0.06)
        body = [(top, -0.95), (waist - 0.03, shoulder), (waist + 0.03, near(0.35)), (1.0, foot)]
        return [
            _ellipse(0, foot + 0.08, near(0.22, 0.05), near(0.22, 0.05), "dark"),
            _polygon(*body, *((-x, y) for x, y in reversed(body))),
        ]
    if shape == "drum":
        half, top, foot = near(0.87), near(-0.45), near(0.6)
        middle = top + 0.05, foot - 0.05
        zigzag = [_line((a, middle[0]), (a + half / 2, middle[1]), (a + half, middle[0])) for a in (-half, 0.0)]
        return [
            _polygon((-half, top), (half, top), (half, foot), (-half, foot)),
            *(zigzag if rng.random() < 0.9 else []),
            _ellipse(0, top, half, near(0.3, 0.06), "light"),
        ]
    if shape == "clock":
        face, long, short = near(0.68, 0.07), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        hands = [(0.52 * np.sin(long), -0.52 * np.cos(long)), (0.0, 0.0), (0.4 * np.sin(short), -0.4 * np.cos(short))]
        return [_ellipse(0, 0, 1, 1), _ellipse(0, 0, face, face, "light"), _line(*hands)]
    if shape == "bird":
        side = -1.0 if rng.random() < 0.2 else 1.0
        parts = [
            _polygon((-1.05, near(-0.1)), (-0.5, 0.1), (-0.5, 0.5), (-1.1, near(0.45))),
            _ellipse(-0.1, 0.25, near(0.65, 0.06), near(0.5, 0.06)),
            _polygon((0.95, -0.5), (near(1.2), -0.28), (0.9, -0.2), colour="dark"),
            _ellipse(0.56, -0.43, near(0.42, 0.04), near(0.42, 0.04)),
            _ellipse(0.63, -0.51, near(0.09, 0.02), near(0.09, 0.02), "dark"),
        ]
        return [(points * (side, 1.0), colour, is_line) for points, colour, is_line in parts]
    raise ValueError(f"no outline for {shape!r}")
