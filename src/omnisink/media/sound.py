"""Sound of a file: one channel at one rate, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.files import INSTALL, duration_of

if TYPE_CHECKING:
    import av.audio
    import av.container

#: What is missing of the sound before the file counts as cut off: this share of its length, and this many seconds.
_SHARE, _SECONDS = 0.05, 0.5


@dataclass(frozen=True)
class Sound:
    """The sound of one stream.

    Attributes
    ----------
    samples : ndarray of float32
        Mono.
    start : float
        Time of the first sample on the file's clock, in seconds.
    damaged : int
        Packets that could not be decoded.
    """

    samples: NDArray[np.float32]
    start: float
    damaged: int


def decode_sound(
    name: str, container: av.container.InputContainer, stream: av.audio.stream.AudioStream, rate: int
) -> Sound:
    """Decode a stream to mono at a rate. The mean over the channels is taken first, as librosa does.

    Parameters
    ----------
    name : str
        For errors.
    container, stream
        Open for reading, at the beginning.
    rate : int
        Samples per second.

    Returns
    -------
    Sound
        All of it.

    Raises
    ------
    MediaError
        If nothing can be decoded, or clearly less than the file says.
    """
    try:
        import soxr
    except ImportError:
        raise MediaError(f"resampling sound needs soxr, which is not installed. Install with: {INSTALL}") from None
    from av.audio.resampler import AudioResampler
    from av.error import FFmpegError

    stream.codec_context.thread_type = "AUTO"
    source = int(stream.codec_context.sample_rate)
    planar = AudioResampler(format="fltp")  # The layout and the rate stay.
    change = None if source == rate else soxr.ResampleStream(source, rate, 1, dtype="float32", quality="HQ")
    blocks: list[NDArray[np.float32]] = []
    start: float | None = None
    damaged = heard = 0

    def take(frame: Any) -> None:
        nonlocal heard
        for part in planar.resample(frame):
            mono = part.to_ndarray().mean(axis=0, dtype=np.float32)
            heard += len(mono)
            blocks.append(mono if change is None else change.resample_chunk(mono))

    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except FFmpegError:
            damaged += 1
            continue
        for frame in decoded:
            if start is None:
                start = float(frame.time or 0.0)
            take(frame)
    take(None)
    if change is not None:
        blocks.append(change.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    if not heard:
        raise MediaError(f"{name}: its sound cannot be decoded")
    said = _said_to_last(container, stream)
    missing = (said or 0.0) - heard / source
    if missing > max(_SECONDS, _SHARE * (said or 0.0)):
        raise MediaError(f"{name}: the file is cut off: {heard / source:.1f} of {said:.1f} s of sound are in it")
    return Sound(np.concatenate(blocks), start or 0.0, damaged)


def _said_to_last(container: Any, stream: Any) -> float | None:
    """Return how long the sound should be by the file's own word, in seconds; None where it does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # The length of a whole file is its longest stream's.
    return None if container.streams.video else duration_of(container)


def align(sound: Sound, rate: int, zero: float) -> tuple[NDArray[np.float32], float]:
    """Let the sound begin at a time: silence is put before it, or samples are cut.

    Parameters
    ----------
    sound : Sound
        What was decoded.
    rate : int
        Samples per second.
    zero : float
        Time of the first frame on the file's clock, in seconds.

    Returns
    -------
    tuple of ndarray of float32 and float
        The samples, and how many seconds after `zero` they began.
    """
    offset = sound.start - zero
    shift = round(offset * rate)
    if shift > 0:
        return np.concatenate([np.zeros(shift, dtype=np.float32), sound.samples]), offset
    return sound.samples[-shift:], offset
