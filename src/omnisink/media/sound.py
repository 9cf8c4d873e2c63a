"""Sound of a file: one channel at one rate, block by block, on the file's own clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import MediaError
from omnisink.media.clock import Clock, in_seconds
from omnisink.media.files import duration_of
from omnisink.media.frames import MISSING_SECONDS, MISSING_SHARE, check_end, packet_end, says_duration
from omnisink.media.heads import says_length
from omnisink.media.limits import MAX_CHANNELS, MAX_RATE, MAX_SAMPLE, MIN_RATE

#: Samples that come this much too late or too early are moved, as FFmpeg's `aresample=async` does; less is the
#: rounding of timestamps. After a packet that was lost the time is taken at its word.
_DRIFT, _EXACT = 0.1, 0.002
#: A clock that goes back further than this was started anew, and the sound goes on.
_NEW_CLOCK = 1.0
#: Bytes between two packets of a WebM or Matroska file that heads of blocks and clusters account for.
_BETWEEN = 128
#: Packets by which encoders and headers may differ about the length of a sound: what is put before and after it.
_PADDING = 3


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
        Packets that could not be decoded, or are missing from the file.
    silent : float
        Seconds of silence that were put where the file has no sound.
    """

    samples: NDArray[np.float32]
    start: float
    damaged: int
    silent: float


def decode_sound(path: str | Path, container: Any, stream: Any, rate: int, max_seconds: float | None) -> Sound:
    """Decode a stream to mono at a rate. The mean over the channels is taken first, as librosa does.

    Parameters
    ----------
    path : str or Path
        Name of the file in errors.
    container, stream
        Open for reading, at the beginning.
    rate : int
        Samples per second.
    max_seconds : float or None
        Longest that is accepted, silence included.

    Returns
    -------
    Sound
        All of it; silence where the file's clock goes on without sound.

    Raises
    ------
    MediaError
        If nothing can be decoded, clearly less than the file says, or what is decoded is not sound.
    """
    track = _Track(path, rate, max_seconds)
    holes = _Holes() if container.format.name.startswith("matroska") else None
    clock, ends = Clock(container.format.name), 0.0
    everything = clock.watches or holes is not None or says_duration(container)
    for packet in container.demux(*(container.streams if everything else [stream])):
        ends = max(ends, packet_end(packet))
        hole, shift = holes is not None and holes.before(packet), clock.shift(packet)
        if packet.stream.index == stream.index:
            track.take(packet, hole, shift)
    check_end(path, container, ends)
    return track.finish(_said_to_last(path, container, stream))


class _Holes:
    """Tells where bytes of a WebM or Matroska file became no packet, because what is around them is damaged."""

    def __init__(self) -> None:
        self._end: int | None = None

    def before(self, packet: Any) -> bool:
        if packet.size == 0 or packet.pos is None:
            return False
        hole = self._end is not None and packet.pos - self._end > _BETWEEN
        self._end = int(packet.pos + packet.size)
        return hole


class _Track:
    """Puts decoded blocks one after another, each at its time."""

    def __init__(self, path: str | Path, rate: int, max_seconds: float | None) -> None:
        self._path, self._rate = path, rate
        self._limit = float("inf") if max_seconds is None else max_seconds
        self._blocks: list[NDArray[np.float32]] = []
        self._resample: Any = None
        self._source = 0
        self._start: float | None = None
        self._zero = 0.0  # What the file's clock shows at the first sample; moves when the clock is started anew.
        self._seconds = 0.0  # Length of what has been taken.
        self._lost = self._hole = False
        self._damaged, self._silent, self._each = 0, 0.0, 0.0

    def take(self, packet: Any, hole: bool, shift: float) -> None:
        """Decode a packet and add what comes out.

        Parameters
        ----------
        packet : Packet
            A packet of the stream, or the empty one at the end.
        hole : bool
            Whether something is missing from the file before it.
        shift : float
            Seconds by which its time is moved.
        """
        from av.error import FFmpegError

        if packet.size == 0 and packet.dts is not None:
            return
        self._hole |= hole
        self._damaged += bool(packet.is_corrupt)
        try:
            frames = packet.decode()
        except FFmpegError:
            self._damaged, self._lost = self._damaged + 1, True
            return
        for frame in frames:
            self._add(frame, shift)

    def finish(self, said: float | None) -> Sound:
        """Return what was taken, if it is as long as the file says."""
        if self._resample is not None:
            self._blocks.append(self._resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        samples = _joined(self._blocks)
        if not len(samples):
            raise MediaError(f"{self._path}: its sound cannot be decoded, or has no samples")
        if not np.isfinite(samples).all():
            raise MediaError(f"{self._path}: its sound holds samples that are not numbers")
        missing = (said or 0.0) - self._seconds
        if missing > max(MISSING_SECONDS, MISSING_SHARE * (said or 0.0)):
            raise MediaError(
                f"{self._path}: the file is cut off: {self._seconds:.1f} of {said:.1f} s of sound are in it"
            )
        if self._each and missing > _PADDING * self._each:
            self._damaged += round(missing / self._each)
        return Sound(samples, self._start or 0.0, self._damaged, self._silent)

    def _add(self, frame: Any, shift: float) -> None:
        rate, mono = frame.sample_rate, self._mono(frame)
        if not len(mono):
            return
        if rate != self._source:
            self._change_rate(rate)
        self._each = max(self._each, len(mono) / rate)  # The last packet may be a short one.
        stamp, base = frame.pts, frame.time_base
        if stamp is not None and base:
            mono = self._placed(mono, in_seconds(stamp, base) + shift)
        self._lost = self._hole = False
        self._push(mono)

    def _placed(self, mono: NDArray[np.float32], time: float) -> NDArray[np.float32]:
        """Put silence before a block that comes late, and cut from one that comes early."""
        if self._start is None:
            self._start = self._zero = time
        late = time - self._zero - self._seconds
        if late < -_NEW_CLOCK:
            self._zero += late
            return mono
        if abs(late) <= (_EXACT if self._lost or self._hole else _DRIFT):
            return mono
        if late < 0:
            return mono[min(len(mono), round(-late * self._source)) :]
        if self._seconds + late > self._limit:
            raise MediaError(f"{self._path}: its sound pauses for {late:.0f} s, beyond the limit of {self._limit:g} s")
        if self._hole:
            self._damaged += max(1, round(late / self._each))
        self._silent += late
        left = round(late * self._source)
        while left > 0:
            self._push(np.zeros(min(left, self._source), dtype=np.float32))
            left -= self._source
        return mono

    def _push(self, mono: NDArray[np.float32]) -> None:
        self._seconds += len(mono) / self._source
        if self._seconds > self._limit:
            raise MediaError(f"{self._path}: its sound lasts longer than the limit of {self._limit:g} s")
        self._blocks.append(mono if self._resample is None else self._resample.resample_chunk(mono))

    def _change_rate(self, rate: int) -> None:
        """Begin with a rate; some streams change it on their way."""
        import soxr

        if not MIN_RATE <= rate <= MAX_RATE:
            raise MediaError(f"{self._path}: its sound has {rate:,} samples per second, which is not read")
        if self._resample is not None:
            self._blocks.append(self._resample.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        self._source = rate
        same = rate == self._rate
        self._resample = None if same else soxr.ResampleStream(rate, self._rate, 1, dtype="float32", quality="HQ")

    def _mono(self, frame: Any) -> NDArray[np.float32]:
        """Return the mean over the channels; full scale is 1."""
        channels = frame.layout.nb_channels
        if not 1 <= channels <= MAX_CHANNELS:
            raise MediaError(f"{self._path}: its sound has {channels} channels; from 1 to {MAX_CHANNELS} are read")
        values = frame.to_ndarray()
        if not frame.format.is_planar:
            values = values.reshape(-1, channels).T
        if values.dtype.kind == "f":
            # A comparison is false for what is not a number, too.
            if values.size and not np.abs(values).max() <= MAX_SAMPLE:
                raise MediaError(f"{self._path}: its sound holds samples that are not numbers, or beyond all measure")
            return values.mean(axis=0, dtype=np.float64 if values.dtype.itemsize == 8 else np.float32).astype(
                np.float32
            )
        bits = 8 * values.dtype.itemsize
        middle = 128 if values.dtype.kind == "u" else 0
        return ((values.mean(axis=0, dtype=np.float64) - middle) / 2.0 ** (bits - 1)).astype(np.float32)


def _joined(blocks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join blocks, letting go of each as it is copied: an hour is not held twice."""
    out = np.empty(sum(map(len, blocks)), dtype=np.float32)
    at = 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        out[at : at + len(block)] = block
        at += len(block)
    return out


def _said_to_last(path: str | Path, container: Any, stream: Any) -> float | None:
    """Return how long the sound should be by the file's own word, in seconds; None where it does not say."""
    if not says_length(Path(path), container.format.name):
        return None
    whole = duration_of(container)
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    written = stream.metadata.get("DURATION")
    if written is not None and whole is not None:
        # Matroska's tag of the track, as hours:minutes:seconds.
        try:
            hours, minutes, seconds = (float(part) for part in written.split(":"))
        except ValueError:
            return None
        ends = 3600 * hours + 60 * minutes + seconds
        return min(ends, whole) - float((stream.start_time or 0) * stream.time_base)
    # The length of a whole file is its longest stream's.
    return None if container.streams.video else whole


def align(
    path: str | Path, sound: Sound, rate: int, zero: float, limit: float | None
) -> tuple[NDArray[np.float32], float]:
    """Let the sound begin at a time: silence is put before it, or samples are cut.

    Parameters
    ----------
    path : str or Path
        Name of the file in errors.
    sound : Sound
        The decoded sound.
    rate : int
        Samples per second.
    zero : float
        Time of the first frame on the file's clock, in seconds.
    limit : float or None
        Longest that is accepted, silence included, in seconds.

    Returns
    -------
    tuple of ndarray of float32 and float
        The samples, and how many seconds after `zero` they began.

    Raises
    ------
    MediaError
        If the sound is over before `zero`, or begins beyond the limit.
    """
    offset = sound.start - zero
    if limit is not None and offset + len(sound.samples) / rate > limit:
        raise MediaError(f"{path}: its sound begins {offset:.0f} s after its picture, beyond the limit of {limit:g} s")
    shift = round(offset * rate)
    if shift > 0:
        return np.concatenate([np.zeros(shift, dtype=np.float32), sound.samples]), offset
    if -shift >= len(sound.samples):
        raise MediaError(
            f"{path}: its sound is over {-offset - len(sound.samples) / rate:.1f} s before its picture begins"
        )
    return sound.samples[-shift:], offset
