"""What every token of the towers should say, from what a scene is known to hold.

A video token stands for two frames and a sixteenth of the picture. The token whose part holds the centre of an object
should say the words of that object; the others say that there is nothing. An audio token stands for 40 ms: it should
say the words of the sound that is playing, or that there is silence.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from omnisink.synthav.draw import FPS
from omnisink.synthav.scene import SECONDS, Scene
from omnisink.synthav.sounds import RATE, speak
from omnisink.synthav.vocabulary import (
    COLOURS,
    LOUDNESS,
    MOTIONS,
    OBJECTS,
    PITCHES,
    SIZES,
    SOUNDS,
    SPOKEN,
    TONES,
    VOICE,
)
from training.clips import FRAMES, TOKENS

#: Words that a token may say, one of each group at most; the first group tells whether it says anything.
SEEN: dict[str, tuple[str, ...]] = {
    "presence": ("nothing", "object"),
    "colour": tuple(COLOURS),
    "object": OBJECTS,
    "size": SIZES,
    "motion": MOTIONS,
    "depth": ("behind", "front"),
}
HEARD: dict[str, tuple[str, ...]] = {
    "presence": ("silence", "sound"),
    "sound": SOUNDS,
    "pitch": PITCHES,
    "loudness": LOUDNESS,
    "word": SPOKEN,
    "onset": ("then", "start"),
}
GRIDS, CELLS = FRAMES // 2, 16
_NONE = -1
_LENGTH = {"beep": 0.35, "buzz": 0.4, "bell": 0.65, "drum": 0.35, "clock": 0.4, "bird": 0.45}


def seen(scene: Scene) -> dict[str, np.ndarray]:
    """Label the video tokens: for every group (4, 16) int64, -1 where it says nothing of it."""
    out = {group: np.full((GRIDS, CELLS), _NONE) for group in SEEN}
    out["presence"][:] = 0
    times = np.linspace(0, SECONDS * FPS - 1, FRAMES).round() / FPS
    for grid in range(GRIDS):
        taken: set[int] = set()
        middle = times[2 * grid : 2 * grid + 2].mean()
        for depth, thing in enumerate(scene.things):
            if not thing.visible(middle):
                continue
            x, y = (4 * v for v in thing.centre(float(middle)))
            free = [c for c in range(CELLS) if c not in taken]
            cell = min(free, key=lambda c: (c % 4 + 0.5 - x) ** 2 + (c // 4 + 0.5 - y) ** 2)
            taken.add(cell)
            words = {
                "presence": 1,
                "colour": thing.colour,
                "object": thing.shape,
                "size": thing.size,
                "motion": thing.motion,
            }
            for group, word in words.items():
                out[group][grid, cell] = word if isinstance(word, int) else SEEN[group].index(word)
            if scene.layout == "overlap":
                out["depth"][grid, cell] = depth
    return out


@lru_cache(maxsize=256)
def _spoken_seconds(word: str, speaker: str) -> float:
    return len(speak(word, speaker)) / RATE


def heard(scene: Scene) -> dict[str, np.ndarray]:
    """Label the audio tokens: for every group (100,) int64, -1 where it says nothing of it."""
    out = {group: np.full(TOKENS, _NONE) for group in HEARD}
    out["presence"][:] = 0
    for sound in scene.sounds:
        length = _spoken_seconds(sound.word, sound.speaker) if sound.kind == VOICE else _LENGTH[sound.kind]
        first = int(sound.begins / SECONDS * TOKENS)
        last = min(int(np.ceil((sound.begins + length) / SECONDS * TOKENS)), TOKENS)
        run = slice(first, last)
        out["presence"][run] = 1
        out["sound"][run] = SOUNDS.index(sound.kind)
        out["loudness"][run] = LOUDNESS.index(sound.loudness)
        out["onset"][run] = 0
        out["onset"][first : first + 2] = 1
        if sound.kind in TONES:
            out["pitch"][run] = PITCHES.index(sound.pitch)
        if sound.kind == VOICE:
            out["word"][run] = SPOKEN.index(sound.word)
    return out


def stack(labels: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Put the labels of several scenes into one tensor for every group."""
    return {group: torch.from_numpy(np.stack([one[group] for one in labels])) for group in labels[0]}


def embeddings(words: tuple[str, ...], tokenizer: object, table: Tensor) -> Tensor:
    """Return what the language model has for some words, (len(words), width); the mean where a word is in pieces."""
    pieces = [tokenizer.encode(" " + word, add_special_tokens=False) for word in words]  # type: ignore[attr-defined]
    return torch.stack([table[p].mean(0) for p in pieces])
