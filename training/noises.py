"""The sounds of SynthAV's scenes, made in many ways.

SynthAV's beeps lie in two narrow ranges of pitch, its voice speaks at one rate in four variants, and the noise
behind is always the same. Here pitches, lengths, overtones, decays, loudness, voices and noise are chosen anew for
every clip.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from omnisink.synthav.scene import SECONDS, Scene, Sound
from omnisink.synthav.sounds import RATE, speak
from omnisink.synthav.vocabulary import VOICE

Wave = NDArray[np.float64]

#: Of low and high tones, in Hz. SynthAV's are at 350 and 1,600 for beeps and at 70 and 240 for buzzes; the boundary is
#: half way between them on the scale of pitch.
_BEEPS = {"low": (160.0, 720.0), "high": (780.0, 3600.0)}
_BUZZES = {"low": (50.0, 125.0), "high": (135.0, 330.0)}
_LOUDNESS = {"quiet": (0.03, 0.12), "loud": (0.25, 0.8)}
_VARIANTS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7")


def play_varied(scene: Scene, rng: Generator) -> tuple[NDArray[np.float32], list[float]]:
    """Make the sound of a scene in a manner of its own.

    Parameters
    ----------
    scene : Scene
        What is heard. Kinds, order, number, pitch and loudness in words stay right.
    rng : Generator
        Chooses the manner.

    Returns
    -------
    tuple
        Samples, (4 s * 24,000,) float32 in [-1, 1], and the length of every sound in seconds.
    """
    track = rng.normal(0, 10 ** rng.uniform(-4.5, -2.2), int(SECONDS * RATE))
    manner = int(rng.integers(2**31))
    lengths = []
    for sound in scene.sounds:
        # Sounds of one kind in one clip sound alike.
        part = _make(sound, np.random.default_rng([manner, sum(map(ord, sound.kind))]))
        start = int(sound.begins * RATE)
        part = part[: len(track) - start]
        track[start : start + len(part)] += part * rng.uniform(*_LOUDNESS[sound.loudness])
        lengths.append(len(part) / RATE)
    return np.clip(track, -1, 1).astype(np.float32), lengths


def through_aac(samples: NDArray[np.float32], kbps: int) -> NDArray[np.float32]:
    """Encode a track as AAC at a bit rate and decode it again, (N,) float32 at 24 kHz."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono", options={"b": f"{kbps}k"})
        for start in range(0, samples.size, 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(stream.encode(frame))  # type: ignore[attr-defined]
        out.mux(stream.encode(None))  # type: ignore[attr-defined]
    file.seek(0)
    with av.open(file) as back:
        decoded = np.concatenate([f.to_ndarray()[0] for f in back.decode(audio=0)])
    return np.pad(decoded, (0, max(0, samples.size - decoded.size)))[: samples.size].astype(np.float32)


def _make(sound: Sound, rng: Generator) -> Wave:
    """Make one sound with a peak of 1."""
    if sound.kind == VOICE:
        return _voice(sound.word, rng)
    makers = {"beep": _beep, "buzz": _buzz, "bell": _bell, "drum": _drum, "clock": _clock, "bird": _bird}
    made = makers[sound.kind](sound.pitch, rng)
    return made / np.abs(made).max()


def _seconds(length: float) -> Wave:
    return np.arange(int(length * RATE)) / RATE


def _fade(x: Wave, rise: float, fall: float) -> Wave:
    up, down = max(1, int(rise * RATE)), max(1, int(fall * RATE))
    x[:up] *= np.linspace(0, 1, up)
    x[-down:] *= np.linspace(1, 0, down)
    return x


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _beep(pitch: str, rng: Generator) -> Wave:
    """Make a steady tone: a pure one, or one with a few soft overtones."""
    t, f = _seconds(rng.uniform(0.18, 0.6)), _log_uniform(rng, *_BEEPS[pitch])
    out = np.sin(2 * np.pi * f * t)
    if rng.random() < 0.25:
        out += sum(float(rng.uniform(0, 0.15)) * np.sin(2 * np.pi * f * m * t) for m in (2, 3))
    edge = rng.uniform(0.002, 0.06)
    return _fade(out, edge, edge)


def _buzz(pitch: str, rng: Generator) -> Wave:
    """Make a harsh tone of many overtones."""
    phase = _log_uniform(rng, *_BUZZES[pitch]) * _seconds(rng.uniform(0.25, 0.6))
    square, saw = np.sign(np.sin(2 * np.pi * phase)), 2 * (phase % 1) - 1
    share = rng.uniform(0, 1)
    return _fade((1 - share) * square + share * saw, 0.01, 0.01)


def _bell(pitch: str, rng: Generator) -> Wave:
    """Make partials that are no multiples of each other and die away, the higher the sooner."""
    t, f, slow = _seconds(rng.uniform(0.5, 0.9)), _log_uniform(rng, 450, 1000), rng.uniform(0.7, 1.4)
    parts = [(1.0, 1.0, 4.0), (2.0, 0.6, 6.0), (2.76, 0.5, 7.0), (5.4, 0.35, 9.0), (8.9, 0.2, 12.0)]
    out = np.zeros_like(t)
    for multiple, loud, decay in parts:
        loud *= rng.uniform(0.6, 1.4)
        out += loud * np.sin(2 * np.pi * f * multiple * rng.uniform(0.98, 1.02) * t) * np.exp(-decay * slow * t)
    return _fade(out, 0.003, 0.01)


def _drum(pitch: str, rng: Generator) -> Wave:
    """Make a low tone that falls, with a burst of noise where it is struck."""
    t = _seconds(rng.uniform(0.25, 0.45))
    sweep = rng.uniform(45, 95) * t + rng.uniform(3, 7) * (1 - np.exp(-20 * t))
    tone = np.sin(2 * np.pi * sweep) * np.exp(-rng.uniform(6, 13) * t)
    return _fade(tone + rng.uniform(0.1, 0.4) * rng.normal(size=t.size) * np.exp(-70 * t), 0.002, 0.01)


def _clock(pitch: str, rng: Generator) -> Wave:
    """Tick, tock: two short clicks."""
    t, gap, decay = _seconds(0.4), rng.uniform(0.15, 0.25), rng.uniform(80, 150)
    out = np.zeros_like(t)
    for at, f in ((0.0, rng.uniform(2000, 3000)), (gap, rng.uniform(1500, 2200))):
        s = np.clip(t - at, 0, None)
        out += (t >= at) * np.sin(2 * np.pi * f * s) * np.exp(-decay * s)
    return _fade(out, 0.001, 0.01)


def _bird(pitch: str, rng: Generator) -> Wave:
    """Make two to four chirps that fall."""
    one, count = rng.uniform(0.1, 0.18), int(rng.integers(2, 5))
    t = _seconds(one * count)
    inside = t % one
    f = rng.uniform(3000, 4300) - rng.uniform(6000, 11000) * inside
    f += rng.uniform(80, 250) * np.sin(2 * np.pi * rng.uniform(30, 50) * t)
    return _fade(np.sin(2 * np.pi * np.cumsum(f) / RATE) * np.sin(np.pi * inside / one) ** 0.7, 0.002, 0.01)


def _voice(word: str, rng: Generator) -> Wave:
    """Let espeak-ng say a word in one of its voices, and play it slower and lower, or quicker and higher."""
    said = speak(word, str(rng.choice(_VARIANTS))).astype(np.float64)
    pace = rng.uniform(0.88, 1.14)
    return np.interp(np.arange(0, said.size - 1, pace), np.arange(said.size), said)
