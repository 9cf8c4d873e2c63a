"""Choice of a file's streams, and whether they can be decoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import MediaError
from omnisink.media.limits import MAX_CHANNELS, MAX_FRAME_PIXELS, MAX_RATE, MIN_RATE

if TYPE_CHECKING:
    import av.container


def moving_pictures(container: av.container.InputContainer) -> list[Any]:
    """Return the video streams that are not cover pictures."""
    return [s for s in container.streams.video if not s.disposition & type(s.disposition).attached_pic]


def video_stream(path: str | Path, container: av.container.InputContainer) -> Any:
    """Return the video stream that a player shows: the one marked as default, then the richest.

    Raises
    ------
    MediaError
        If there is none, this FFmpeg has no decoder for it, or its frames are too large.
    """
    stream = _best(path, "video", container, moving_pictures(container))
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_FRAME_PIXELS:
        raise MediaError(
            f"{path}: its frames have more than {MAX_FRAME_PIXELS:,} pixels, the limit: they are {width} x {height}"
        )
    return stream


def audio_stream(path: str | Path, container: av.container.InputContainer) -> Any:
    """Return the sound that a player plays: the track marked as default, then the one that goes with the picture.

    Raises
    ------
    MediaError
        If there is none, this FFmpeg has no decoder for it, or it has too many channels or an absurd rate.
    """
    stream = _best(path, "audio", container, list(container.streams.audio))
    channels, rate = stream.codec_context.layout.nb_channels, stream.codec_context.sample_rate
    if not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(f"{path}: its sound has {channels} channels; from 1 to {MAX_CHANNELS} are read")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise MediaError(
            f"{path}: its sound has {rate:,} samples per second; rates from {MIN_RATE:,} to {MAX_RATE:,} are read"
        )
    return stream


def _best(path: str | Path, kind: Any, container: Any, streams: list[Any]) -> Any:
    what = "video" if kind == "video" else "sound"
    if not streams:
        raise MediaError(f"{path}: has no video" if kind == "video" else f"{path}: has no sound")
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise MediaError(f"{path}: this FFmpeg has no decoder for its {what}")
    best = container.streams.best(kind)
    return next((s for s in usable if best is not None and s.index == best.index), usable[0])
