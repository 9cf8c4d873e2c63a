"""Clips drawn by Matplotlib, with plain tones and espeak-ng's own voice: what SmolOmni's third round is measured on.

They were written when that round's settings were fixed, and nothing was chosen on them. Shapes differ in size, edge
and angle, backgrounds in brightness, frame rates and codecs from clip to clip, and neither the program that draws nor
the colours, tones and voice are those of the training.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.plain_clips import RATE, SECONDS, SHAPES, PlainClip
from omnisink.synthav.vocabulary import OBJECTS

#: Matplotlib's names of colours, for the words of SynthAV.
COLOURS = {
    "red": "crimson",
    "green": "forestgreen",
    "blue": "royalblue",
    "yellow": "gold",
    "orange": "darkorange",
    "purple": "darkorchid",
    "pink": "hotpink",
    "white": "white",
}
#: Sides of the square frames in pixels.
SIDES = (180, 256, 400)
#: Tones in Hz; none is one of `benchmarks.plain_clips.TONES`.
TONES = (220, 440, 600, 1000, 2000, 3000)
#: What the voice says: no word of SynthAV.
WORDS = ("hello", "morning", "kitchen", "seven", "window", "thank you")


@dataclass(frozen=True)
class MatplotlibClip(PlainClip):
    """One clip.

    Attributes
    ----------
    share : float
        Width and height of the shape as a share of the frame.
    grey : float
        Brightness of the background, from 0 to 1.
    edge : bool
        Whether the shape has a thin black outline.
    turn : float
        Angle in degrees by which the shape is turned.
    side : int
        Width and height of a frame in pixels.
    word : str
        What the voice says; a tone is heard where it says nothing.
    """

    share: float = 0.25
    grey: float = 0.5
    edge: bool = False
    turn: float = 0.0
    side: int = 256
    word: str = ""

    @property
    def heard(self) -> str:
        """What kind of sound it is."""
        return "voice" if self.word else "beep"

    def frames(self) -> NDArray[np.uint8]:
        """Return (4 s * fps, side, side, 3) RGB."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.side / 100, self.side / 100), dpi=100, facecolor=str(self.grey))
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.axis("off")
        pictures = []
        for along in np.linspace(0.22, 0.78, SECONDS * self.fps):
            place = along if self.motion in ("right", "up") else 1 - along
            x, y = (place, 0.45) if self.motion in ("left", "right") else (0.55, place)
            shape = axes.add_patch(self._patch(x, y))
            canvas.draw()
            pictures.append(np.array(canvas.buffer_rgba())[..., :3])
            shape.remove()
        return np.stack(pictures)

    def _patch(self, x: float, y: float) -> Any:
        """Make the shape around a point, in Matplotlib's own forms."""
        from matplotlib.patches import Circle, PathPatch, Rectangle, RegularPolygon
        from matplotlib.path import Path
        from matplotlib.transforms import Affine2D

        half = self.share / 2
        look = {"facecolor": COLOURS[self.colour], "edgecolor": "black", "linewidth": 0.8 if self.edge else 0}
        if self.shape == "circle":
            return Circle((x, y), half, **look)
        if self.shape == "square":
            corner = (x - half, y - half)
            return Rectangle(corner, self.share, self.share, angle=self.turn, rotation_point="center", **look)
        if self.shape == "triangle":
            return RegularPolygon((x, y - half / 4), 3, radius=half * 1.15, orientation=np.radians(self.turn), **look)
        star = Affine2D().rotate_deg(self.turn).scale(half * 1.05).translate(x, y)
        return PathPatch(Path.unit_regular_star(5, innerCircle=0.42).transformed(star), **look)

    def sound(self) -> NDArray[np.float32]:
        """Return (96,000,): a tone of half a second twice, or a word once."""
        track = np.zeros(SECONDS * RATE, dtype=np.float32)
        if self.word:
            said = say(self.word)[: int(2.5 * RATE)]
            track[RATE:][: said.size] = 0.5 * said
            return track
        t = np.arange(RATE // 2) / RATE
        tone = 0.3 * np.sin(2 * np.pi * self.tone * t) * np.minimum(1, np.minimum(t, t[::-1]) / 0.02)
        for begins in (0.5, 2.2):
            track[int(begins * RATE) :][: t.size] = tone
        return track

    def questions(self, rng: np.random.Generator) -> Iterator[tuple[str, str, list[str], str]]:
        """Ask as a plain clip does, with wrong shapes from all eight objects of SynthAV."""
        yield from self.ask(rng, tuple(COLOURS), OBJECTS)


def say(word: str) -> NDArray[np.float32]:
    """Let espeak-ng say a word in its English voice as it is, (N,) at 24 kHz with a peak of 1."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("the voice needs the program espeak-ng, which is not installed")
    spoken = subprocess.run([program, "--stdout", "-v", "en-us", word], capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(2**28), dtype="<i2").astype(np.float64)
    at = np.arange(int(samples.size * RATE / rate)) * rate / RATE
    resampled = np.interp(at, np.arange(samples.size), samples)
    return (resampled / np.abs(resampled).max()).astype(np.float32)


def matplotlib_clips() -> list[MatplotlibClip]:
    """Return 64 clips: every shape in every colour twice, one of them with a tone and the other with a voice."""
    rng, clips = np.random.default_rng(0), []
    for number, (voice, shape, colour) in enumerate(product((False, True), SHAPES, COLOURS)):
        # White is not put on white, and nothing on a grey that is as bright as it is.
        grey = rng.uniform(0.1, 0.55) if colour in ("white", "yellow", "pink") else rng.choice([0.12, 0.5, 0.85, 1.0])
        clips.append(
            MatplotlibClip(
                shape,
                colour,
                ("left", "right", "up", "down")[number % 4],
                TONES[number % len(TONES)],
                fps=(24, 30, 12)[number % 3],
                codec=("libx264", "mpeg4")[number // 2 % 2],
                share=float(rng.uniform(0.2, 0.45)),
                grey=float(grey),
                edge=bool(rng.random() < 0.3),
                turn=float(rng.uniform(-10, 10)),
                side=int(rng.choice(SIDES)),
                word=WORDS[number % len(WORDS)] if voice else "",
            )
        )
    return clips
