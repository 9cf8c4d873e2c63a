"""Reading a file: its frames, its sound, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.choice import ByFps, FrameChoice
from omnisink.media.clip import Clip, MediaRecord
from omnisink.media.decoding import decode_chosen
from omnisink.media.files import duration_of, import_av, open_media
from omnisink.media.frames import read_index
from omnisink.media.heads import RAW_STREAMS
from omnisink.media.limits import MAX_KEPT_PIXELS, MAX_SECONDS
from omnisink.media.pictures import frames_of_picture, read_as_clip, read_moving, read_still
from omnisink.media.scaling import kept_size
from omnisink.media.sound import align, decode_sound
from omnisink.media.streams import audio_stream, video_stream

BACKENDS = ("pyav", "torchcodec")
SPANS = ("file", "frames")


def read_clip(
    path: str | Path,
    *,
    frames: FrameChoice | None = ByFps(),  # noqa: B008 (frozen)
    audio_rate: int | None = None,
    audio_span: str = "file",
    max_side: int | None = None,
    max_pixels: int | None = MAX_KEPT_PIXELS,
    max_seconds: float | None = MAX_SECONDS,
    backend: str = "pyav",
    jump: bool = True,
) -> Clip:
    """Read frames and sound of a file.

    Parameters
    ----------
    path : str or Path
        A local file.
    frames : FrameChoice, optional
        Choice of frames; None for no pictures.
    audio_rate : int, optional
        Samples per second; None wants no sound.
    audio_span : {"file", "frames"}
        All of the sound, or what is heard until the last kept frame is over.
    max_side : int, optional
        Scale frames down so that no side is longer.
    max_pixels : int, optional
        Scale frames down so that all kept ones together have no more pixels; None for no limit.
    max_seconds : float, optional
        Longest file that is accepted; None for no limit.
    backend : {"pyav", "torchcodec"}
        Decoder of the frames. torchcodec has to be installed.
    jump : bool
        Jump to keyframes where that is nearer; the frames are the same without it.

    Returns
    -------
    Clip
        Memory is needed for the kept frames and the kept sound, however long and large the file.

    Raises
    ------
    MediaError
        If the file is missing, empty, cut off, not media, too long, or lacks the picture or the sound that is wanted.
    """
    if backend not in BACKENDS:
        raise MediaError(f"unknown backend {backend!r}: use pyav or torchcodec")
    if audio_span not in SPANS:
        raise MediaError(f"unknown audio_span {audio_span!r}: use file or frames")
    if frames is None and audio_rate is None:
        raise MediaError(f"{path}: neither frames nor sound are wanted, so there is nothing to read")
    import_av()
    seen = None if frames is None else _read_frames(path, frames, max_side, max_pixels, max_seconds, backend, jump)
    samples, about = (None, {}) if audio_rate is None else _read_sound(path, audio_rate, audio_span, max_seconds, seen)
    record = MediaRecord(**{**about, **({} if seen is None else seen.about)})
    if seen is None:
        return Clip(None, None, samples, audio_rate, record)
    return Clip(seen.pixels, seen.times, samples, audio_rate, record)


def read_audio(
    path: str | Path, rate: int = 16_000, max_seconds: float | None = MAX_SECONDS
) -> tuple[NDArray[np.float32], MediaRecord]:
    """Read the sound of a file: mono, (samples,) float32 at `rate`; errors as `read_clip`'s."""
    clip = read_clip(path, frames=None, audio_rate=rate, max_seconds=max_seconds)
    assert clip.audio is not None
    return clip.audio, clip.record


def read_image(path: str | Path) -> tuple[NDArray[np.uint8], MediaRecord]:
    """Read a still image, (H, W, 3) uint8 RGB, upright as its EXIF orientation says; errors as `read_clip`'s.

    Transparent parts become white. For a moving image the first frame is returned.
    """
    pixels, kind = read_still(path)
    height, width = pixels.shape[:2]
    return pixels, MediaRecord(
        Path(path).name, kind, "pillow", width=width, height=height, frames_total=1, frames_kept=1
    )


class _Seen:
    """Kept frames with what they were chosen from."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        times: NDArray[np.float64],
        start: float,
        chosen: NDArray[np.int64],
        about: dict[str, Any],
    ):
        self.pixels, self.start = pixels, start
        self.times = times[chosen]
        last = int(chosen[-1])
        steps = np.diff(times)
        step = float(steps[last]) if last < len(steps) else float(np.median(steps)) if len(steps) else 0.0
        #: When the last kept frame is over, in seconds since the first frame.
        self.end = float(times[last]) + step
        span = float(times[-1])
        self.about = about | {
            "average_fps": (len(times) - 1) / span if span > 0 else None,
            "frames_total": len(times),
            "frames_kept": len(chosen),
        }


def _read_sound(
    path: str | Path, rate: int, span: str, max_seconds: float | None, seen: _Seen | None
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    if frames_of_picture(path):
        raise MediaError(f"{path}: has no sound")
    with open_media(path, max_seconds) as container:
        stream = audio_stream(path, container)
        sound = decode_sound(path, container, stream, rate, max_seconds)
        samples, offset = align(path, sound, rate, sound.start if seen is None else seen.start, max_seconds)
        if span == "frames" and seen is not None:
            samples = samples[: round(seen.end * rate)]
        return samples, _about(path, container) | {
            "audio_codec": stream.codec_context.name,
            "audio_rate": stream.codec_context.sample_rate,
            "audio_channels": stream.codec_context.layout.nb_channels,
            "audio_tracks": len(container.streams.audio),
            "samples": len(samples),
            "samples_damaged": sound.damaged,
            "audio_silent": sound.silent,
            "audio_offset": offset,
            "audio_span": span,
        }


def _read_frames(
    path: str | Path,
    choice: FrameChoice,
    max_side: int | None,
    max_pixels: int | None,
    max_seconds: float | None,
    backend: str,
    jump: bool,
) -> _Seen:
    if moments := frames_of_picture(path):
        read = read_as_clip if moments == 1 else read_moving
        pixels, times, chosen, size, kind = read(path, choice, max_side, max_pixels)
        about = {"name": Path(path).name, "container": kind, "backend": "pillow", "width": size[0], "height": size[1]}
        return _Seen(pixels, times, 0.0, chosen, about)
    index = read_index(path, max_seconds)
    chosen = np.asarray(choice.select(index.times), dtype=np.int64)
    if not len(chosen):
        raise MediaError(f"{path}: no frame was chosen")
    with open_media(path, max_seconds) as container:
        stream = video_stream(path, container)
        width, height = stream.codec_context.width, stream.codec_context.height
        number, codec = stream.index, stream.codec_context.name
        about = _about(path, container) | {"backend": backend, "video_codec": codec}
    size = kept_size(width, height, len(chosen), max_side, max_pixels)
    if backend == "torchcodec" and not index.from_order:
        from omnisink.media.codec import decode_with_torchcodec

        decoded = decode_with_torchcodec(path, number, index, chosen, size)
    else:
        decoded = decode_chosen(path, index, chosen, size, jump)
    about |= {
        "width": height if decoded.turned else width,
        "height": width if decoded.turned else height,
        "rotation": decoded.rotation,
        "frames_damaged": decoded.damaged + index.lost,
        "times_from_rate": index.from_rate or about["container"] in RAW_STREAMS,
    }
    return _Seen(decoded.pixels, index.times, index.start, chosen, about)


def _about(path: str | Path, container: Any) -> dict[str, Any]:
    return {"name": Path(path).name, "container": container.format.name, "duration": duration_of(container)}
