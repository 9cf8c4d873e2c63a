"""Files that ported models are asked about: pictures, sounds and clips, each in two versions."""

from __future__ import annotations

import wave
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Files:
    """A picture, a sound and a clip with sound."""

    image: Path
    audio: Path
    video: Path


def make_files(folder: Path, version: int) -> Files:
    """Write the files of a version into a folder.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    version : int
        Two versions have nothing in common.

    Returns
    -------
    Files
        A PNG of 80 x 50 pixels, two seconds of noise at 16 kHz, and an mp4 of four seconds.

    Raises
    ------
    OmnisinkError
        If PyAV is missing.
    """
    from PIL import Image

    from omnisink.synthav.render import render
    from omnisink.synthav.scene import Sound, make_scene

    folder.mkdir(parents=True, exist_ok=True)
    files = Files(folder / "picture.png", folder / "sound.wav", folder / "clip.mp4")
    draws = np.random.default_rng(version)
    Image.fromarray(draws.integers(0, 255, (50, 80, 3), dtype=np.uint8)).save(files.image)
    with wave.open(str(files.audio), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(draws.integers(-8000, 8000, 32_000, dtype=np.int16).tobytes())
    # Sounds that need no program to be made.
    sounds = (Sound("beep", 0.5), Sound("bell", 2.5)) if version else (Sound("bell", 0.5), Sound("drum", 2.0))
    render(replace(make_scene("train", version), sounds=sounds), files.video)
    return files
