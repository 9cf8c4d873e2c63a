"""The content of a clip, drawn from a seed before anything is rendered.

Every scene is a function of its split and its index only. The splits draw from different streams of random numbers,
so that no two of them share a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from omnisink.synthav.vocabulary import (
    COLOURS,
    DIRECTIONS,
    HELD_OUT_OBJECTS,
    HELD_OUT_SOUNDS,
    LOUDNESS,
    OBJECTS,
    PITCHES,
    SIZES,
    SOUNDING,
    SOUNDS,
    SPOKEN,
    TONES,
    VOICE,
)

#: Length of every clip in seconds.
SECONDS = 4.0
HALF = SECONDS / 2

Split = Literal["train", "tune", "test"]
SPLITS: tuple[Split, ...] = ("train", "tune", "test")


@dataclass(frozen=True)
class Thing:
    """An object on the screen.

    Attributes
    ----------
    shape, colour, size, motion : str
        Words of the vocabulary.
    x, y : float
        Centre in the middle of its time on screen, as shares of the frame.
    radius : float
        Half its extent, as a share of the frame.
    reach : float
        Distance travelled during the whole clip, as a share of the frame; 0 if the thing stays in place.
    begins, ends : float
        Its time on screen in seconds.
    """

    shape: str
    colour: str
    size: str
    motion: str
    x: float
    y: float
    radius: float
    reach: float = 0.0
    begins: float = 0.0
    ends: float = SECONDS

    def centre(self, time: float) -> tuple[float, float]:
        """Return its centre at a time, as shares of the frame."""
        along = self.reach * (time / SECONDS - 0.5)
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}[self.motion]
        return self.x + dx * along, self.y + dy * along

    def visible(self, time: float) -> bool:
        """Tell whether it is on screen at a time."""
        return self.begins <= time < self.ends

    @property
    def name(self) -> str:
        """Its colour and shape."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Sound:
    """A sound at one time.

    Attributes
    ----------
    kind : str
        One of `SOUNDS`.
    begins : float
        Start in seconds.
    pitch, loudness : str
        Words of the vocabulary; the pitch matters only for tones.
    word, speaker : str
        Text that is spoken, and the voice.
    """

    kind: str
    begins: float
    pitch: str = "high"
    loudness: str = "loud"
    word: str = ""
    speaker: str = ""


@dataclass(frozen=True)
class Scene:
    """A clip before it is rendered.

    Attributes
    ----------
    split, index
        Origin of the scene; they determine everything else.
    layout : str
        ``"single"``, ``"pair"``, ``"overlap"``, ``"many"`` or ``"sequence"``.
    things : tuple of Thing
        The things from back to front.
    sounds : tuple of Sound
        The sounds in order of time.
    bar : float or None
        Left edge of an upright bar in front of everything, as a share of the frame.
    texture : int
        Seed of the background.
    """

    split: Split
    index: int
    layout: str
    things: tuple[Thing, ...]
    sounds: tuple[Sound, ...]
    bar: float | None
    texture: int

    @property
    def name(self) -> str:
        """A file name without suffix."""
        return f"{self.split}-{self.index:06d}"

    @property
    def kinds(self) -> list[str]:
        """The kinds of sound, each once, in order of time."""
        return list(dict.fromkeys(s.kind for s in self.sounds))

    @property
    def held_out(self) -> bool:
        """Tell whether it holds a combination that training never shows."""
        return any((t.colour, t.shape) in HELD_OUT_OBJECTS for t in self.things) or any(
            (t.shape, s.kind) in HELD_OUT_SOUNDS for t in self.things for s in self.sounds
        )


def random_of(split: Split, index: int, purpose: int) -> Generator:
    """Return the random numbers of one scene for one purpose; no other scene and no other purpose has them."""
    return np.random.default_rng([SPLITS.index(split), index, purpose])


def make_scene(split: Split, index: int) -> Scene:
    """Draw a scene.

    Parameters
    ----------
    split : {"train", "tune", "test"}
        Training and tuning scenes hold no held-out combination; half of the test scenes do.
    index : int
        Number of the scene.

    Returns
    -------
    Scene
        The same for the same arguments.
    """
    rng = random_of(split, index, 0)
    wants_new = split == "test" and index % 2 == 1
    while True:
        scene = _draw(rng, split, index)
        if scene.held_out == wants_new:
            return scene


def _draw(rng: Generator, split: Split, index: int) -> Scene:
    layout = str(rng.choice(["single", "pair", "overlap", "many", "sequence"], p=[0.28, 0.14, 0.1, 0.18, 0.3]))
    things = {"single": _single, "pair": _pair, "overlap": _overlap, "many": _many, "sequence": _sequence}[layout](rng)
    bar = None
    if layout == "single" and rng.random() < 0.25:
        bar = float(rng.uniform(0.3, 0.55))
    sounds = _timed(rng, things) if layout == "sequence" and rng.random() < 0.75 else _sounds(rng, things)
    return Scene(split, index, layout, things, sounds, bar, int(rng.integers(2**31)))


def _words(rng: Generator, count: int) -> list[tuple[str, str]]:
    """Draw `count` shapes and colours, no shape and no colour twice."""
    shapes = rng.permutation(OBJECTS)[:count]
    colours = rng.permutation(list(COLOURS))[:count]
    return [(str(s), str(c)) for s, c in zip(shapes, colours, strict=True)]


def _radius(rng: Generator, size: str) -> float:
    return float(rng.uniform(0.10, 0.12) if size == "small" else rng.uniform(0.19, 0.23))


def _single(rng: Generator) -> tuple[Thing, ...]:
    (shape, colour), size = _words(rng, 1)[0], str(rng.choice(SIZES))
    if rng.random() < 0.25:
        return (Thing(shape, colour, size, "still", *_anywhere(rng), _radius(rng, size)),)
    motion = str(rng.choice(DIRECTIONS))
    across, reach = float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.5, 0.6))
    x, y = (0.5, across) if motion in ("left", "right") else (across, 0.5)
    return (Thing(shape, colour, size, motion, x, y, _radius(rng, size), reach),)


def _anywhere(rng: Generator) -> tuple[float, float]:
    return float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.25, 0.75))


def _pair(rng: Generator) -> tuple[Thing, ...]:
    spots = [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]
    chosen = rng.permutation(4)[:2]
    things = []
    for (shape, colour), spot in zip(_words(rng, 2), chosen, strict=True):
        size = str(rng.choice(SIZES))
        x, y = (float(v + rng.uniform(-0.04, 0.04)) for v in spots[spot])
        things.append(Thing(shape, colour, size, "still", x, y, _radius(rng, size)))
    return tuple(things)


def _overlap(rng: Generator) -> tuple[Thing, ...]:
    (back, first), (front, second) = _words(rng, 2)
    x, y = float(rng.uniform(0.36, 0.64)), float(rng.uniform(0.36, 0.64))
    angle, gap = rng.uniform(0, 2 * np.pi), 0.14
    dx, dy = float(gap * np.cos(angle)), float(gap * np.sin(angle))
    return (
        Thing(back, first, "large", "still", x - dx, y - dy, _radius(rng, "large")),
        Thing(front, second, "large", "still", x + dx, y + dy, _radius(rng, "large")),
    )


def _many(rng: Generator) -> tuple[Thing, ...]:
    (shape, colour), count = _words(rng, 1)[0], int(rng.integers(1, 5))
    spots = rng.permutation(9)[:count]
    return tuple(
        Thing(
            shape,
            colour,
            "small",
            "still",
            float(0.2 + 0.3 * (spot % 3) + rng.uniform(-0.04, 0.04)),
            float(0.2 + 0.3 * (spot // 3) + rng.uniform(-0.04, 0.04)),
            _radius(rng, "small"),
        )
        for spot in sorted(int(s) for s in spots)
    )


def _sequence(rng: Generator) -> tuple[Thing, ...]:
    things = []
    for part, (shape, colour) in enumerate(_words(rng, 2)):
        size = str(rng.choice(SIZES))
        begins, ends = part * HALF, (part + 1) * HALF
        things.append(
            Thing(shape, colour, size, "still", *_anywhere(rng), _radius(rng, size), begins=begins, ends=ends)
        )
    return tuple(things)


def _kind(rng: Generator, things: tuple[Thing, ...]) -> str:
    """Draw a kind of sound: half the time one that belongs to a thing on the screen, where there is such a thing."""
    own = [t.shape for t in things if t.shape in SOUNDING]
    if own and rng.random() < 0.5:
        return str(rng.choice(own))
    return str(rng.choice(SOUNDS, p=[0.16, 0.12, 0.12, 0.12, 0.12, 0.12, 0.24]))


def _voice(rng: Generator, things: tuple[Thing, ...], begins: float, loudness: str) -> Sound:
    """Make the voice say something: half the time what is on the screen."""
    seen = [word for t in things for word in (t.shape, t.colour)]
    word = str(rng.choice(seen)) if rng.random() < 0.5 else str(rng.choice(SPOKEN))
    return Sound(VOICE, begins, "high", loudness, word, str(rng.choice(["f2", "m1", "m3", "f4"])))


def _sound(rng: Generator, kind: str, things: tuple[Thing, ...], begins: float) -> Sound:
    loudness = str(rng.choice(LOUDNESS, p=[0.4, 0.6]))
    if kind == VOICE:
        return _voice(rng, things, begins, loudness)
    pitch = str(rng.choice(PITCHES)) if kind in TONES else "high"
    return Sound(kind, begins, pitch, loudness)


def _sounds(rng: Generator, things: tuple[Thing, ...]) -> tuple[Sound, ...]:
    kind = _kind(rng, things)
    if kind == VOICE:
        return (_sound(rng, kind, things, float(rng.uniform(0.3, 2.8))),)
    if rng.random() < 0.35:
        other = str(rng.choice([s for s in SOUNDS if s != kind]))
        first, second = float(rng.uniform(0.2, 0.9)), float(rng.uniform(2.1, 2.8))
        pair = [kind, other] if rng.random() < 0.5 else [other, kind]
        return _sound(rng, pair[0], things, first), _sound(rng, pair[1], things, second)
    count = int(rng.integers(1, 5))
    model = _sound(rng, kind, things, 0.0)
    gap = float(rng.uniform(0.75, 0.95))
    start = float(rng.uniform(0.1, SECONDS - 0.7 - gap * (count - 1)))
    return tuple(Sound(kind, start + gap * i, model.pitch, model.loudness) for i in range(count))


def _timed(rng: Generator, things: tuple[Thing, ...]) -> tuple[Sound, ...]:
    """One sound while one of two things is on the screen, or one sound for each."""
    kind = _kind(rng, things)
    times = [float(rng.uniform(0.2, 1.1)), float(rng.uniform(2.2, 3.1))]
    if rng.random() < 0.45:
        other = str(rng.choice([s for s in SOUNDS if s != kind]))
        pair = [kind, other] if rng.random() < 0.5 else [other, kind]
        return tuple(_sound(rng, k, things, t) for k, t in zip(pair, times, strict=True))
    return (_sound(rng, kind, things, times[int(rng.integers(2))]),)
