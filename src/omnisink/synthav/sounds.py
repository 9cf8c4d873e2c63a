"""The sound of a scene: synthesized waves, and words spoken by espeak-ng."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError
from omnisink.synthav.scene import SECONDS, Scene, Sound, random_of
from omnisink.synthav.vocabulary import VOICE

#: Samples per second.
RATE = 24_000
_AMPLITUDE = {"quiet": 0.06, "loud": 0.5}
_NOISE = 0.002

Wave = NDArray[np.float32]


def play(scene: Scene) -> Wave:
    """Make the sound of a scene.

    Parameters
    ----------
    scene : Scene
        Sound to play.

    Returns
    -------
    ndarray of float32
        (4 s * 24,000,), mono, in [-1, 1].

    Raises
    ------
    OmnisinkError
        If a voice speaks in it and espeak-ng is not installed.
    """
    rng = random_of(scene.split, scene.index, 1)
    track = rng.normal(0, _NOISE, int(SECONDS * RATE))
    for sound in scene.sounds:
        part = _make(sound, rng)
        start = int(sound.begins * RATE)
        part = part[: len(track) - start]
        track[start : start + len(part)] += part * _AMPLITUDE[sound.loudness]
    return np.clip(track, -1, 1).astype(np.float32)


def _make(sound: Sound, rng: np.random.Generator) -> NDArray[np.float64]:
    """Make one sound with a peak of 1."""
    if sound.kind == VOICE:
        return speak(sound.word, sound.speaker).astype(np.float64)
    made = {"beep": _beep, "buzz": _buzz, "bell": _bell, "drum": _drum, "clock": _clock, "bird": _bird}[sound.kind](
        sound.pitch, rng
    )
    return made / np.abs(made).max()


def _seconds(length: float) -> NDArray[np.float64]:
    return np.arange(int(length * RATE)) / RATE


def _fade(x: NDArray[np.float64], seconds: float = 0.01) -> NDArray[np.float64]:
    n = int(seconds * RATE)
    x[:n] *= np.linspace(0, 1, n)
    x[-n:] *= np.linspace(1, 0, n)
    return x


def _frequency(pitch: str, rng: np.random.Generator, low: float, high: float) -> float:
    return float((low if pitch == "low" else high) * 2 ** rng.uniform(-0.2, 0.2))


def _beep(pitch: str, rng: np.random.Generator) -> NDArray[np.float64]:
    return _fade(np.sin(2 * np.pi * _frequency(pitch, rng, 350, 1600) * _seconds(0.35)))


def _buzz(pitch: str, rng: np.random.Generator) -> NDArray[np.float64]:
    phase = _frequency(pitch, rng, 70, 240) * _seconds(0.4)
    return _fade(np.sign(np.sin(2 * np.pi * phase)) + 0.6 * (2 * (phase % 1) - 1))


def _bell(pitch: str, rng: np.random.Generator) -> NDArray[np.float64]:
    t, f = _seconds(0.65), float(rng.uniform(620, 760))
    parts = [(1.0, 1.0, 4.0), (2.0, 0.6, 6.0), (2.76, 0.5, 7.0), (5.4, 0.35, 9.0), (8.9, 0.2, 12.0)]
    return _fade(
        sum((a * np.sin(2 * np.pi * f * m * t) * np.exp(-d * t) for m, a, d in parts), np.zeros_like(t)), 0.004
    )


def _drum(pitch: str, rng: np.random.Generator) -> NDArray[np.float64]:
    t = _seconds(0.35)
    sweep = rng.uniform(55, 75) * t + 5 * (1 - np.exp(-20 * t))
    return _fade(np.sin(2 * np.pi * sweep) * np.exp(-9 * t) + 0.25 * rng.normal(size=t.size) * np.exp(-70 * t), 0.002)


def _clock(pitch: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Tick, tock: two short clicks."""
    t = _seconds(0.4)
    out = np.zeros_like(t)
    for at, f in ((0.0, rng.uniform(2300, 2700)), (0.2, rng.uniform(1700, 2000))):
        s = np.clip(t - at, 0, None)
        out += (t >= at) * np.sin(2 * np.pi * f * s) * np.exp(-110 * s)
    return _fade(out, 0.001)


def _bird(pitch: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Three falling chirps."""
    t, one = _seconds(0.45), 0.15
    inside = t % one
    f = rng.uniform(3400, 3900) - 9000 * inside + 180 * np.sin(2 * np.pi * 40 * t)
    return _fade(np.sin(2 * np.pi * np.cumsum(f) / RATE) * np.sin(np.pi * inside / one) ** 0.7)


@lru_cache(maxsize=256)
def speak(word: str, speaker: str) -> Wave:
    """Let espeak-ng say a word.

    Parameters
    ----------
    word : str
        An English word.
    speaker : str
        A variant of its English voice, as ``"f2"``.

    Returns
    -------
    ndarray of float32
        Mono at 24,000 Hz, silence cut off, with a peak of 1.

    Raises
    ------
    OmnisinkError
        If espeak-ng is not installed or fails.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise OmnisinkError(
            "SynthAV's spoken words need the program espeak-ng, which is not installed (Debian's package espeak-ng)"
        )
    said = subprocess.run([program, "--stdout", "-v", f"en+{speaker}", "-s", "150", word], capture_output=True)
    if said.returncode or not said.stdout:
        raise OmnisinkError(f"espeak-ng could not say {word!r}: {said.stderr.decode(errors='replace').strip()}")
    with wave.open(io.BytesIO(said.stdout)) as file:
        rate = file.getframerate()
        # The length in the header is wrong where the output is a pipe, so everything is read.
        samples = np.frombuffer(file.readframes(2**28), dtype="<i2").astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    places = np.arange(int(len(samples) * RATE / rate)) * rate / RATE
    resampled = np.interp(places, np.arange(len(samples)), samples)
    return (resampled / np.abs(resampled).max()).astype(np.float32)
