"""The result of reading a file: frames, sound, and a record of what was read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MediaRecord:
    """A record of what a file holds and what was read of it, for a result that can be repeated.

    Attributes
    ----------
    name : str
        File name without its folder.
    container, backend : str
        Format by the name of the demuxer; what decoded the frames.
    duration : float or None
        Seconds, as the file says.
    video_codec, audio_codec : str or None
        None where the file has no such stream.
    width, height : int or None
        Size of the upright frames, before any resizing.
    rotation : int
        Degrees anticlockwise by which the stored frames were turned.
    average_fps : float or None
        Frames over time.
    frames_total, frames_kept, frames_damaged : int
        Frames of the video stream; frames returned; frames that could not be decoded, or only with errors, among those
        that had to be decoded. A kept frame that could not be decoded is replaced by the nearest one before it, as a
        player leaves that one standing.
    times_from_rate : bool
        Whether the file has no timestamps, as raw streams have none, so that the times are made from its frame rate.
    audio_rate, audio_channels : int or None
        Rate and channels of the stream, before mixing and resampling.
    audio_tracks : int
        Tracks of sound in the file; the one that a player would choose is read.
    samples, samples_damaged : int
        Samples returned; packets of sound that could not be decoded, or are missing from a damaged file.
    audio_silent : float
        Seconds of silence among the samples where the file has no sound: pauses, and packets that are missing.
    audio_offset : float
        Seconds from the first frame to the first sample; silence is put in, or samples are cut, to make it 0.
    audio_span : str
        ``"file"`` or ``"frames"``.
    """

    name: str
    container: str
    backend: str = "pyav"
    duration: float | None = None
    video_codec: str | None = None
    width: int | None = None
    height: int | None = None
    rotation: int = 0
    average_fps: float | None = None
    frames_total: int = 0
    frames_kept: int = 0
    frames_damaged: int = 0
    times_from_rate: bool = False
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None
    audio_tracks: int = 0
    samples: int = 0
    samples_damaged: int = 0
    audio_silent: float = 0.0
    audio_offset: float = 0.0
    audio_span: str = "file"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Clip:
    """Frames and sound of one file.

    Attributes
    ----------
    frames : ndarray of uint8 or None
        (N, H, W, 3), RGB, upright.
    times : ndarray of float64 or None
        (N,), seconds since the first frame of the video.
    audio : ndarray of float32 or None
        (samples,), mono: the mean over the channels.
    rate : int or None
        Samples per second.
    record : MediaRecord
        Record of what was read.
    """

    frames: NDArray[np.uint8] | None
    times: NDArray[np.float64] | None
    audio: NDArray[np.float32] | None
    rate: int | None
    record: MediaRecord
