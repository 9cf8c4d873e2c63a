"""Reading a file: its frames, its sound, or both."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.choice import ByFps, FrameChoice
from omnisink.media.clip import Clip, MediaRecord
from omnisink.media.files import check_file, duration_of, open_media
from omnisink.media.frames import Converter, FrameIndex, decode, read_index, rotation_of
from omnisink.media.sound import align, decode_sound

#: Longest file that is read unless the caller says otherwise, in seconds.
MAX_SECONDS = 4 * 3600.0
BACKENDS = ("pyav", "torchcodec")
SPANS = ("file", "frames")

#: Fewer than one frame in so many is wanted: nearly every one is jumped to.
_SPARSE = 200


def read_clip(
    path: str | Path,
    *,
    frames: FrameChoice | None = ByFps(),  # noqa: B008 (frozen)
    audio_rate: int | None = None,
    audio_span: str = "file",
    max_side: int | None = None,
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
        Which frames; None wants no picture.
    audio_rate : int, optional
        Samples per second; None wants no sound.
    audio_span : {"file", "frames"}
        All of the sound, or what is heard until the last kept frame is over.
    max_side : int, optional
        Scale frames down so that no side is longer.
    max_seconds : float, optional
        Longest file that is accepted; None is no limit.
    backend : {"pyav", "torchcodec"}
        What decodes the frames. torchcodec has to be installed.
    jump : bool
        Jump to keyframes where that is nearer; the frames are the same without it.

    Returns
    -------
    Clip
        Memory is needed for the kept frames and the kept sound, however long the file.

    Raises
    ------
    MediaError
        If the file is missing, empty, cut off, not media, too long, or lacks the picture or the sound that is wanted.
    """
    name = str(path)
    if backend not in BACKENDS:
        raise MediaError(f"unknown backend {backend!r}: use pyav or torchcodec")
    if audio_span not in SPANS:
        raise MediaError(f"unknown audio_span {audio_span!r}: use file or frames")
    if frames is None and audio_rate is None:
        raise MediaError(f"{name}: neither frames nor sound are wanted, so there is nothing to read")
    seen: _Seen | None = None
    if frames is not None:
        seen = _read_frames(path, frames, max_side, max_seconds, backend, jump)
    samples, heard = None, dict[str, Any]()
    if audio_rate is not None:
        with open_media(path, max_seconds) as container:
            if not container.streams.audio:
                raise MediaError(f"{name}: has no sound")
            stream = container.streams.audio[0]
            sound = decode_sound(name, container, stream, audio_rate)
            samples, offset = align(sound, audio_rate, sound.start if seen is None else seen.index.start)
            if audio_span == "frames" and seen is not None:
                samples = samples[: round(seen.end * audio_rate)]
            heard = {
                "audio_codec": stream.codec_context.name,
                "audio_rate": stream.codec_context.sample_rate,
                "audio_channels": stream.codec_context.layout.nb_channels,
                "samples": len(samples),
                "samples_damaged": sound.damaged,
                "audio_offset": offset,
                "audio_span": audio_span,
            }
            about = _about(path, container)
    record = MediaRecord(**{**(about if seen is None else seen.about), **heard})
    return Clip(
        None if seen is None else seen.pixels,
        None if seen is None else seen.times,
        samples,
        audio_rate,
        record,
    )


def read_audio(
    path: str | Path, rate: int = 16_000, max_seconds: float | None = MAX_SECONDS
) -> tuple[NDArray[np.float32], MediaRecord]:
    """Read the sound of a file: mono, (samples,) float32 at `rate`; errors as `read_clip`'s."""
    clip = read_clip(path, frames=None, audio_rate=rate, max_seconds=max_seconds)
    assert clip.audio is not None
    return clip.audio, clip.record


def read_image(path: str | Path) -> tuple[NDArray[np.uint8], MediaRecord]:
    """Read a still image, (H, W, 3) uint8 RGB, upright as its EXIF orientation says; errors as `read_clip`'s."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = check_file(path)
    try:
        with Image.open(file) as image:
            kind = image.format or "image"
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        raise MediaError(f"{path}: not an image that can be read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: the image is cut off or damaged ({error})") from None
    height, width = pixels.shape[:2]
    return pixels, MediaRecord(
        file.name, kind.lower(), "pillow", width=width, height=height, frames_total=1, frames_kept=1
    )


class _Seen:
    """Kept frames with what they were chosen from."""

    def __init__(self, pixels: NDArray[np.uint8], index: FrameIndex, chosen: NDArray[np.int64], about: dict[str, Any]):
        self.pixels, self.index, self.about = pixels, index, about
        self.times = index.times[chosen]
        last = int(chosen[-1])
        steps = np.diff(index.times)
        step = float(steps[last]) if last < len(steps) else float(np.median(steps)) if len(steps) else 0.0
        #: When the last kept frame is over, in seconds since the first frame.
        self.end = float(index.times[last]) + step


def _read_frames(
    path: str | Path, choice: FrameChoice, max_side: int | None, max_seconds: float | None, backend: str, jump: bool
) -> _Seen:
    name = str(path)
    with open_media(path, max_seconds) as container:
        pictures = [s for s in container.streams.video if not s.disposition & type(s.disposition).attached_pic]
        if not pictures:
            raise MediaError(f"{name}: has no video")
        stream = pictures[0]
        index = read_index(name, container, stream)
        if max_seconds is not None and index.times[-1] > max_seconds:
            raise MediaError(f"{name}: lasts {index.times[-1]:.0f} s, longer than the limit of {max_seconds:g} s")
        chosen = np.asarray(choice.select(index.times), dtype=np.int64)
        if not len(chosen):
            raise MediaError(f"{name}: no frame was chosen")
        if container.format.name == "image2" or container.format.name.endswith("_pipe"):
            # A still image is read as one, which also turns it as its EXIF orientation says.
            picture, told = read_image(path)
            return _Seen(picture[None], index, chosen, told.to_dict() | {"container": container.format.name})
        if backend == "torchcodec":
            from omnisink.media.codec import decode_with_torchcodec

            pixels, damaged, rotation = decode_with_torchcodec(path, chosen, max_side), 0, 0
        else:
            pixels, damaged, rotation = _decode_chosen(name, container, stream, index, chosen, max_side, jump)
        width, height = stream.codec_context.width, stream.codec_context.height
        turned = rotation % 180 != 0
        span = float(index.times[-1])
        about = _about(path, container) | {
            "backend": backend,
            "video_codec": stream.codec_context.name,
            "width": height if turned else width,
            "height": width if turned else height,
            "rotation": rotation,
            "average_fps": (len(index.pts) - 1) / span if span > 0 else None,
            "frames_total": len(index.pts),
            "frames_kept": len(chosen),
            "frames_damaged": damaged,
        }
    return _Seen(pixels, index, chosen, about)


def _decode_chosen(
    name: str,
    container: Any,
    stream: Any,
    index: FrameIndex,
    chosen: NDArray[np.int64],
    max_side: int | None,
    jump: bool,
) -> tuple[NDArray[np.uint8], int, int]:
    """Decode the chosen frames into one array that is made once."""
    # Threads decode several frames at once and hold them all, which is for nothing where every frame is jumped to.
    sparse = len(index.pts) > _SPARSE * len(chosen)
    stream.codec_context.thread_type, stream.codec_context.thread_count = "AUTO", 1 if sparse else 0
    damage, rotation, convert = [0], 0, Converter(max_side)
    pixels: NDArray[np.uint8] | None = None
    unique, places = np.unique(chosen, return_inverse=True)
    wanted = [int(p) for p in index.pts[unique]]

    def keep(number: int, frame: Any) -> None:
        nonlocal pixels, rotation
        rgb = convert(frame)
        if pixels is None:
            rotation = rotation_of(frame)
            pixels = np.empty((len(chosen), *rgb.shape), dtype=np.uint8)
        if rgb.shape != pixels.shape[1:]:
            raise MediaError(f"{name}: its frames change size from {pixels.shape[1:3]} to {rgb.shape[:2]}")
        for place in np.flatnonzero(places == number):
            pixels[place] = rgb

    done = 0
    # One frame is converted while the next are decoded; a second would wait in memory for nothing.
    with ThreadPoolExecutor(1) as worker:
        kept: Future[None] | None = None
        for number, (_, frame) in enumerate(decode(container, stream, index, wanted, damage, jump)):
            if kept is not None:
                kept.result()
            kept = worker.submit(keep, number, frame)
            done = number + 1
        if kept is not None:
            kept.result()
    if pixels is None:
        raise MediaError(f"{name}: no frame of its video can be decoded")
    if done < len(wanted):
        at = float(index.times[unique[done]])
        raise MediaError(f"{name}: the file is cut off: the frame at {at:.2f} s and what follows cannot be decoded")
    return pixels, damage[0], rotation


def _about(path: str | Path, container: Any) -> dict[str, Any]:
    return {"name": Path(path).name, "container": container.format.name, "duration": duration_of(container)}
