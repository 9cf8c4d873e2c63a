"""Damaged files of ten formats and more, by the seed: each is read right, or refused with one error that names it.

A decoder that crashes ends its process, so `test_fuzz.py` runs this program as a child. By hand, for minutes:

    python -m tests.media.fuzz --seconds 600 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from omnisink.media import MediaError, Uniform, read_clip, read_image
from omnisink.media.kind import kind_of
from tests.media.media_files import numbered, sine, sound, video

#: Files that say how long they are, so that a missing end has to be noticed.
SAY_LENGTH = ("a.mp4", "a.mkv", "a.webm", "a.avi", "a.wav")
#: Most memory of the child, and for one file most seconds of work and of waiting; files of these sizes need far less.
MEMORY, WORKING, WAITING = 6 << 30, 60, 240
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def make_files(folder: Path) -> dict[str, Path]:
    """Write one small file of every format."""
    from PIL import Image

    tone = sine(440, 0.8, 16_000)
    small = {"frames": 20, "size": (80, 48)}
    key = {"g": "8", "bf": "2", "preset": "ultrafast"}
    files = {
        "a.mp4": video(folder / "a.mp4", options=key, audio=tone, **small),
        "fragments.mp4": video(
            folder / "fragments.mp4",
            options=key,
            audio=tone,
            container={"movflags": "frag_keyframe+empty_moov"},
            **small,
        ),
        "a.mkv": video(folder / "a.mkv", options=key, audio=tone, **small),
        "a.webm": video(folder / "a.webm", codec="libvpx", options={"deadline": "realtime"}, **small),
        "a.avi": video(folder / "a.avi", codec="mpeg4", options={"g": "8"}, **small),
        "a.ts": video(folder / "a.ts", options=key, audio=tone, fmt="mpegts", **small),
        "a.mpg": video(folder / "a.mpg", codec="mpeg2video", fmt="mpeg", **small),
        "a.h264": video(folder / "a.h264", options=key, fmt="h264", **small),
        "a.flv": video(folder / "a.flv", options=key, audio=tone, rate=16_000, **small),
        "a.wav": sound(folder / "a.wav", np.stack([tone, tone]), 16_000, layout="stereo"),
        "a.flac": sound(folder / "a.flac", tone[None], 16_000, "flac"),
        "a.mp3": sound(folder / "a.mp3", tone[None], 16_000, "libmp3lame", fmt="s16p"),
        "a.opus": sound(folder / "a.opus", tone[None], 16_000, "libopus"),
    }
    pictures = [Image.fromarray(numbered(i, 80, 48)) for i in (5, 9, 12)]
    see_through = pictures[0].convert("RGBA")
    see_through.putalpha(128)
    for name in ("a.jpg", "a.bmp", "a.tiff", "a.avif", "a.ico"):
        pictures[0].save(folder / name)
        files[name] = folder / name
    see_through.save(folder / "a.png")
    files["a.png"] = folder / "a.png"
    for name in ("moving.gif", "moving.webp", "moving.png"):
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:], duration=200)
        files[name] = folder / name
    return files


def flip(data: bytearray, rng: np.random.Generator) -> None:
    """Turn a few bits anywhere."""
    for at in rng.integers(0, len(data), rng.integers(1, 24)):
        data[at] ^= 1 << int(rng.integers(8))


def cut(data: bytearray, rng: np.random.Generator) -> None:
    """Let the end be missing."""
    del data[int(rng.integers(1, len(data))) :]


def extreme(data: bytearray, rng: np.random.Generator) -> None:
    """Set fields of the head, or of the end where some formats keep their index, to the least and the greatest."""
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.choice([1, 2, 4]))
        near = int(rng.integers(0, min(len(data) - width, 1024)))
        at = near if rng.random() < 0.7 else len(data) - width - near
        value = int(rng.choice(EXTREMES)) & ((1 << 8 * width) - 1)
        order = "<" if rng.random() < 0.5 else ">"
        data[at : at + width] = struct.pack(order + {1: "B", 2: "H", 4: "I"}[width], value)


def swap(data: bytearray, rng: np.random.Generator) -> None:
    """Let two chunks change places."""
    size = int(rng.integers(4, max(5, len(data) // 4)))
    a, b = sorted(int(n) for n in rng.integers(0, max(1, len(data) - size), 2))
    if b - a >= size:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def fill(data: bytearray, rng: np.random.Generator) -> None:
    """Write noise or zeros over a chunk."""
    size = int(rng.integers(1, max(2, len(data) // 8)))
    at = int(rng.integers(0, len(data) - size))
    data[at : at + size] = bytes(size) if rng.random() < 0.5 else rng.integers(0, 256, size, dtype=np.uint8).tobytes()


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    """Put a chunk in a second time."""
    size = int(rng.integers(1, max(2, len(data) // 4)))
    at = int(rng.integers(0, len(data) - size))
    data[at:at] = data[at : at + size]


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (flip, cut, extreme, swap, fill, repeat)


def check(path: Path) -> str:
    """Read a file in every way, and hold what comes back against what a clip has to be; returns the outcome."""
    outcomes = {_outcome(read, path) for read in (_as_clip, _as_sound, _as_image, kind_of)}
    return "read" if "read" in outcomes else "refused"


def _outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except MediaError as error:
        _check_error(str(error), path)
        return "refused"
    return "read"


def _check_error(message: str, path: Path) -> None:
    assert path.name in message, f"the error does not name the file: {message}"
    assert "\n" not in message, f"the error has more than one line: {message!r}"


def _as_clip(path: Path) -> None:
    clip = read_clip(path, frames=Uniform(5))
    record = clip.record
    assert clip.frames is not None
    assert clip.times is not None
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape[0] == len(clip.times) == record.frames_kept <= record.frames_total
    assert clip.frames.shape[3] == 3
    assert np.isfinite(clip.times).all()
    assert clip.times[0] >= 0
    assert (np.diff(clip.times) >= 0).all()
    assert clip.frames.size <= 3 * 2**27


def _as_sound(path: Path) -> None:
    clip = read_clip(path, frames=None, audio_rate=16_000)
    assert clip.audio is not None
    assert clip.audio.dtype == np.float32
    assert clip.audio.ndim == 1
    assert len(clip.audio) == clip.record.samples > 0
    assert np.isfinite(clip.audio).all()


def _as_image(path: Path) -> None:
    pixels, _ = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def main() -> None:
    """Damage files until the time is up; what fails ends the run with the seed and the name of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first file; the next has the next")
    parser.add_argument("--only", type=int, help="this one seed, for a file that failed")
    parser.add_argument("--keep", type=Path, help="where the damaged file is written; a temporary folder unless given")
    asked = parser.parse_args()
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outcomes: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = make_files(folder)
        for name, path in files.items():
            assert check(path) == "read", f"{name} is whole and was refused"
        begin, number = time.monotonic(), asked.seed if asked.only is None else asked.only
        while time.monotonic() - begin < asked.seconds:
            rng = np.random.default_rng(number)
            name = sorted(files)[int(rng.integers(len(files)))]
            data = bytearray(files[name].read_bytes())
            mutate = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
            mutate(data, rng)
            damaged = folder / f"damaged-{name}"
            damaged.write_bytes(data)
            # Written before the file is read: if the process dies, the last line tells on what.
            print(f"seed {number}: {name}, {mutate.__name__}", file=sys.stderr, flush=True)
            # A hang ends the process, too.
            signal.setitimer(signal.ITIMER_PROF, WORKING)
            signal.alarm(WAITING)
            outcomes[check(damaged)] += 1
            if mutate is cut and name in SAY_LENGTH and len(data) < 0.9 * files[name].stat().st_size:
                assert _outcome(_as_clip, damaged) == _outcome(_as_sound, damaged) == "refused", "a missing end passes"
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            number += 1
            if asked.only is not None:
                break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{sum(outcomes.values())} files, {dict(outcomes)}, {peak} MiB")


if __name__ == "__main__":
    main()
