"""Small real files, written with PyAV: frames that carry their number, and sounds of known pitch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS = 160, 96, 10


def numbered(i: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Draw a number as ten upright bars, white for one and black for nought."""
    picture = np.zeros((height, width, 3), np.uint8)
    step = width // BITS
    for bit in range(BITS):
        picture[:, bit * step : (bit + 1) * step] = 255 * ((i >> bit) & 1)
    return picture


def read_number(picture: NDArray[np.uint8]) -> int:
    """Read the number of a frame back."""
    height, width = picture.shape[:2]
    step = width // BITS
    return sum(int(picture[height // 2, bit * step + step // 2].mean() > 128) << bit for bit in range(BITS))


def video(
    path: Path,
    frames: int = 60,
    fps: int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: Callable[[int], int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pix_fmt: str = "yuv420p",
    rotate: int = 0,
    audio: NDArray[np.float32] | None = None,
    rate: int = 16_000,
    start: float = 0.0,
    container: dict[str, str] | None = None,
    fmt: str | None = None,
) -> Path:
    """Write a video; `times` gives each frame's time in milliseconds, where the rate is not to be constant."""
    with av.open(str(path), "w", format=fmt, options=container or {}) as file:
        stream: Any = file.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        if rotate:
            stream.set_display_rotation(rotate)
        sound: Any = None
        if audio is not None:
            sound = file.add_stream("aac", rate=rate, layout="mono")
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(i, *size), format="rgb24")
            frame.pts = times(i) if times else i
            frame.time_base = stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if audio is not None:
            _encode(file, sound, audio[None], rate, "fltp", "mono", round(start * rate))
    return path


def sound(
    path: Path,
    samples: NDArray[np.float32],
    rate: int,
    codec: str = "pcm_s16le",
    layout: str = "mono",
    fmt: str = "s16",
) -> Path:
    """Write samples, (channels, n) float32 in [-1, 1], in a codec of 16 bits."""
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=rate, layout=layout)
        packed = np.ascontiguousarray((samples * 32767).round().astype(np.int16).T.reshape(1, -1))
        _encode(file, stream, packed, rate, fmt, layout, 0)
    return path


def _encode(file: Any, stream: Any, samples: NDArray[Any], rate: int, fmt: str, layout: str, offset: int) -> None:
    channels = 1 if fmt.endswith("p") or layout == "mono" else stream.codec_context.layout.nb_channels
    block = (stream.codec_context.frame_size or 1024) * channels
    for at in range(0, samples.shape[1], block):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, at : at + block]), format=fmt, layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, offset + at // channels, Fraction(1, rate)
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def sine(frequency: float, seconds: float, rate: int, loud: float = 0.5) -> NDArray[np.float32]:
    """Make a sine."""
    return (loud * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def pitch(samples: NDArray[np.float32], rate: int) -> float:
    """Return the strongest frequency."""
    window = np.hanning(len(samples))
    return float(np.abs(np.fft.rfft(samples * window)).argmax() * rate / len(samples))


def numbers(frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8] | None) -> list[int]:
    """Read the numbers of several frames."""
    assert frames is not None
    return [read_number(frame) for frame in frames]
