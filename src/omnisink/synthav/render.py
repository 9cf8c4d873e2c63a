"""Scenes to mp4 files: H.264 and AAC, so that reading them takes the path of any other video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from omnisink.errors import OmnisinkError
from omnisink.extras import install
from omnisink.synthav.draw import FPS, SIDE, draw
from omnisink.synthav.scene import SECONDS, Scene
from omnisink.synthav.sounds import RATE, play


def render(scene: Scene, path: str | Path) -> None:
    """Write a scene as an mp4 file of 4 seconds, 224 x 224 pixels at 8 frames a second, mono sound at 24 kHz.

    Parameters
    ----------
    scene : Scene
        Scene to render.
    path : str or Path
        The file; one that is there is replaced.

    Raises
    ------
    OmnisinkError
        If PyAV or, for a scene with a voice, espeak-ng is not installed, or the file cannot be written.
    """
    try:
        import av
    except ImportError:
        raise OmnisinkError(f"rendering clips needs PyAV. Install with: {install('media')}") from None
    frames = draw(scene, np.arange(int(SECONDS * FPS)) / FPS)
    samples = play(scene)
    try:
        with av.open(str(path), "w", format="mp4") as file:
            video = file.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast", "threads": "1"})
            video.width = video.height = SIDE
            video.pix_fmt = "yuv420p"
            sound: Any = file.add_stream("aac", rate=RATE, layout="mono")
            sound.bit_rate = 64_000
            for picture in frames:
                file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(video.encode(None))
            block = sound.codec_context.frame_size or 1024
            for start in range(0, len(samples), block):
                part = av.AudioFrame.from_ndarray(samples[None, start : start + block], format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = RATE, start, Fraction(1, RATE)
                file.mux(sound.encode(part))
            file.mux(sound.encode(None))
    except OSError as error:
        raise OmnisinkError(f"{path} could not be written: {error.strerror or error}") from error
