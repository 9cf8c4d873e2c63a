"""What SmolOmni makes of clips that are not drawn as SynthAV draws: how the figures of its model card were measured.

One plain shape of 52 pixels crosses a plain grey picture while a pure tone sounds twice. SynthAV draws polygons with a
dark edge on textured backgrounds, with Pillow. Here every pixel is the share of it that the shape covers, from the
shape's inequality on a finer grid: no edge, no texture, smooth outlines, 25 frames a second.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from omnisink import load_model
from omnisink.results.statistics import SHARE, mean_interval

SIDE, FPS, SECONDS, RATE = 224, 25, 4, 24_000
#: Width and height of every shape in pixels.
SIZE = 52
GREY = 128
#: Points of the finer grid along a pixel.
_FINE = 4
#: The words of SynthAV; the values of red, green, ... are not its own.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (20, 60, 230),
    "yellow": (250, 230, 20),
    "orange": (250, 130, 0),
    "purple": (120, 30, 160),
    "pink": (255, 150, 200),
    "white": (255, 255, 255),
}
#: Tones in Hz that lie between and beyond those of SynthAV's beeps, which are 305 to 402 and 1,393 to 1,838.
TONES = (250, 700, 2500)
SOUNDS = ("beep", "buzz", "bell", "drum", "clock", "bird", "voice")

Plane = NDArray[np.float64]


def _star(x: Plane, y: Plane) -> NDArray[np.bool_]:
    """Five points: outside all, or inside all but one, of the lines through every second corner."""
    turns = np.pi / 2 + 2 * np.pi * np.arange(5) / 5
    inside = sum((np.cos(t) * x - np.sin(t) * -y <= np.cos(2 * np.pi / 5)).astype(int) for t in turns + np.pi)
    return inside >= 4


#: Whether a point lies in a shape; x to the right and y downward, from -1 to 1.
SHAPES: dict[str, Callable[[Plane, Plane], NDArray[np.bool_]]] = {
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 1,
    "triangle": lambda x, y: (y <= 1) & (2 * abs(x) - y <= 1),
    "star": _star,
}


@dataclass(frozen=True)
class PlainClip:
    """One clip: what is seen, which way it moves, the tone in Hz, frames a second, and FFmpeg's name of the codec."""

    shape: str
    colour: str
    motion: str
    tone: int
    fps: int = FPS
    codec: str = "libx264"

    @property
    def heard(self) -> str:
        """What kind of sound it is."""
        return "beep"

    def frames(self) -> NDArray[np.uint8]:
        """Return (4 s * fps, 224, 224, 3) RGB."""
        paint = np.array(COLOURS[self.colour], dtype=float)
        pictures = np.full((SECONDS * self.fps, SIDE, SIDE, 3), GREY, dtype=np.uint8)
        for picture, along in zip(pictures, np.linspace(0.2, 0.8, len(pictures)), strict=True):
            if self.motion in ("left", "up"):
                along = 1 - along
            x, y = (along * SIDE, SIDE / 2) if self.motion in ("left", "right") else (SIDE / 2, along * SIDE)
            left, top = int(x - SIZE / 2) - 1, int(y - SIZE / 2) - 1
            grid = (np.arange((SIZE + 4) * _FINE) + 0.5) / _FINE
            inside = SHAPES[self.shape](
                ((grid + left - x) / (SIZE / 2))[None, :], ((grid + top - y) / (SIZE / 2))[:, None]
            )
            cover = inside.reshape(SIZE + 4, _FINE, SIZE + 4, _FINE).mean(axis=(1, 3))[..., None]
            place = picture[top : top + SIZE + 4, left : left + SIZE + 4]
            place[:] = np.rint(GREY * (1 - cover) + paint * cover)
        return pictures

    def sound(self) -> NDArray[np.float32]:
        """Return (96,000,), two tones of 0.3 s with soft ends."""
        track = np.zeros(SECONDS * RATE, dtype=np.float32)
        t = np.arange(int(0.3 * RATE)) / RATE
        tone = 0.4 * np.sin(2 * np.pi * self.tone * t) * np.hanning(t.size) ** 0.25
        for begins in (1.0, 2.5):
            track[int(begins * RATE) :][: t.size] = tone
        return track

    def write(self, path: Path) -> None:
        """Write the clip as an mp4 file."""
        frames, quality = self.frames(), {"crf": "20"} if self.codec == "libx264" else {"qscale": "4"}
        with av.open(str(path), "w") as file:
            video: Any = file.add_stream(self.codec, rate=self.fps, options={**quality, "threads": "1"})
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            audio: Any = file.add_stream("aac", rate=RATE, layout="mono")
            for picture in frames:
                file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(video.encode(None))
            samples = self.sound()
            for start in range(0, samples.size, 1024):
                part = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = RATE, start, Fraction(1, RATE)
                file.mux(audio.encode(part))
            file.mux(audio.encode(None))

    def questions(self, rng: np.random.Generator) -> Iterator[tuple[str, str, list[str], str]]:
        """Give what is asked, the question as SynthAV words it, its four choices, and the right one."""
        yield from self.ask(rng, tuple(COLOURS), tuple(SHAPES))

    def ask(
        self, rng: np.random.Generator, colours: tuple[str, ...], shapes: tuple[str, ...]
    ) -> Iterator[tuple[str, str, list[str], str]]:
        """Ask for colour, shape and sound, with wrong choices drawn from these colours and shapes."""
        for what, text, right, words in (
            ("colour", f"What colour is the {self.shape}?", self.colour, colours),
            ("shape", f"Which object is {self.colour}?", self.shape, shapes),
            ("sound", "Which sound is heard?", self.heard, SOUNDS),
        ):
            wrong = [word for word in words if word != right]
            choices = [right, *(wrong[i] for i in rng.permutation(len(wrong))[:3])]
            yield what, text, [choices[i] for i in rng.permutation(4)], right


def plain_clips() -> list[PlainClip]:
    """Return 32 clips: every shape in every colour, with the tones and the directions in turn."""
    every = enumerate(product(SHAPES, COLOURS))
    return [PlainClip(s, c, ("left", "right", "up", "down")[i % 4], TONES[i % 3]) for i, (s, c) in every]


def answers(loaded: Any, clips: Sequence[PlainClip], seed: int = 0) -> list[dict[str, Any]]:
    """Ask a model three questions about every clip; one record for each, with what was said."""
    rng, records = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for clip in clips:
            clip.write(path)
            asked = list(clip.questions(rng))
            texts, choices = [text for _, text, _, _ in asked], [choices for _, _, choices, _ in asked]
            found = loaded.ask(texts, video=path, choices=choices, max_new_tokens=4)
            for (what, _, words, right), got in zip(asked, found, strict=True):
                said = words["ABCD".index(got.choice)] if got.choice else got.text
                records.append({"clip": clip, "what": what, "right": right, "said": said})
    return records


def main() -> None:
    """Print the table of the model card."""
    from benchmarks.matplotlib_clips import matplotlib_clips

    renderers: dict[str, Callable[[], Sequence[PlainClip]]] = {"numpy": plain_clips, "matplotlib": matplotlib_clips}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smolomni")
    parser.add_argument("--renderer", choices=list(renderers), default="numpy")
    arguments = parser.parse_args()
    records = answers(load_model(arguments.model), renderers[arguments.renderer]())
    print("| asked | right | of | percent, 95 % interval | what is said where it is wrong |")
    print("| --- | --- | --- | --- | --- |")
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["what"]].append(record)
    for record in records:
        if record["what"] == "shape":
            groups[f"shape: {record['right']}"].append(record)
        if record["what"] == "sound":
            clip = record["clip"]
            groups[f"sound: {clip.tone} Hz" if clip.heard == "beep" else "sound: voice"].append(record)
    for name, found in groups.items():
        scores = [float(record["said"] == record["right"]) for record in found]
        wrong = Counter(record["said"] for record in found if record["said"] != record["right"])
        interval = mean_interval(scores, [str(r["clip"]) for r in found], bounds=SHARE)
        low, high = (100 * interval.low, 100 * interval.high)
        said = ", ".join(f"{word} {count}" for word, count in wrong.most_common(4))
        share = f"{100 * np.mean(scores):.0f} ({low:.0f} to {high:.0f})"
        print(f"| {name} | {int(sum(scores))} | {len(scores)} | {share} | {said} |")


if __name__ == "__main__":
    main()
