"""The labels of the towers' tokens, from the known content of a scene.

A video token sees two frames, and sixteen of them stand for the whole picture; together they spell what is in it, as a
caption would: *three small red star still*, and after eight tokens the second object, if there is one. An audio token
hears 40 ms around its own: the first of every sound spell it, *bell loud*, and where the voice speaks the rest say its
word. What is left says *nothing* and *silence*.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from omnisink.synthav.draw import FPS
from omnisink.synthav.scene import SECONDS, Scene, Sound, Thing
from omnisink.synthav.sounds import RATE, speak
from omnisink.synthav.vocabulary import (
    COLOURS,
    DIRECTIONS,
    LOUDNESS,
    NUMBERS,
    OBJECTS,
    PITCHES,
    SIZES,
    SOUNDS,
    SPOKEN,
    TONES,
    VOICE,
)
from training.clips import FRAMES, TOKENS, frame_times

#: What a token may say, by group. The voice's words are marked, so that no spoken bell is taken for a bell.
SEEN: dict[str, tuple[str, ...]] = {
    "none": ("nothing",),
    "number": NUMBERS,
    "size": SIZES,
    "colour": tuple(COLOURS),
    "object": OBJECTS,
    "motion": DIRECTIONS,
    "rest": ("still",),
    "depth": ("behind", "front"),
}
HEARD: dict[str, tuple[str, ...]] = {
    "none": ("silence",),
    "sound": SOUNDS,
    "pitch": PITCHES,
    "loudness": LOUDNESS,
    "word": tuple(f"says {word}" for word in SPOKEN),
}
GRIDS, CELLS = FRAMES // 2, 16
#: Tokens for one object.
_RUN = 8
_LENGTH = {"beep": 0.35, "buzz": 0.4, "bell": 0.65, "drum": 0.35, "clock": 0.4, "bird": 0.45}


def sayings(groups: dict[str, tuple[str, ...]]) -> list[str]:
    """Return everything that a token may say, in the order of the labels."""
    return [saying for group in groups.values() for saying in group]


_SEEN = {saying: i for i, saying in enumerate(sayings(SEEN))}
_HEARD = {saying: i for i, saying in enumerate(sayings(HEARD))}


def seen(scene: Scene) -> np.ndarray:
    """Label the video tokens: (4, 16) int64 into the sayings of `SEEN`."""
    out = np.zeros((GRIDS, CELLS), dtype=np.int64)
    times = frame_times(FPS)
    for grid in range(GRIDS):
        middle = float(times[2 * grid : 2 * grid + 2].mean())
        for place, (number, thing, last) in enumerate(_objects(scene, middle)):
            spelled = [NUMBERS[number - 1], thing.size, *2 * [thing.colour], *2 * [thing.shape], thing.motion, last]
            out[grid, place * _RUN : (place + 1) * _RUN] = [_SEEN[word] for word in spelled]
    return out


def _objects(scene: Scene, time: float) -> list[tuple[int, Thing, str]]:
    """Return how many of each object are on screen, the object, and its last word."""
    shown = [thing for thing in scene.things if thing.visible(time)]
    if scene.layout == "many":
        return [(len(shown), shown[0], shown[0].motion)]
    if scene.layout == "overlap":
        return [(1, thing, where) for thing, where in zip(shown, SEEN["depth"], strict=True)]
    # As one reads: the upper row first, and each row from the left.
    return [(1, thing, thing.motion) for thing in sorted(shown, key=lambda t: (t.y > 0.5, t.x))]


@lru_cache(maxsize=256)
def _spoken_seconds(word: str, speaker: str) -> float:
    return len(speak(word, speaker)) / RATE


def _usual_seconds(sound: Sound) -> float:
    return _spoken_seconds(sound.word, sound.speaker) if sound.kind == VOICE else _LENGTH[sound.kind]


def heard(scene: Scene, lengths: list[float] | None = None) -> np.ndarray:
    """Label the audio tokens: (100,) int64 into the sayings of `HEARD`; `lengths` are the sounds', in seconds."""
    out = np.zeros(TOKENS, dtype=np.int64)
    for sound, length in zip(scene.sounds, lengths or map(_usual_seconds, scene.sounds), strict=True):
        first = int(sound.begins / SECONDS * TOKENS)
        last = min(int(np.ceil((sound.begins + length) / SECONDS * TOKENS)), TOKENS)
        spelled = 3 * [sound.kind] + 2 * [sound.pitch] * (sound.kind in TONES) + 2 * [sound.loudness]
        rest = f"says {sound.word}" if sound.kind == VOICE else "silence"
        spelled += [rest] * (last - first)
        out[first:last] = [_HEARD[word] for word in spelled[: last - first]]
    return out


def embeddings(said: list[str], tokenizer: object, table: Tensor) -> Tensor:
    """Return what the language model has for some sayings, (len(said), width); the mean over a saying's pieces."""
    pieces = [tokenizer.encode(" " + one, add_special_tokens=False) for one in said]  # type: ignore[attr-defined]
    return torch.stack([table[p].mean(0) for p in pieces])
