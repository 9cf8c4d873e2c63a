"""What BEATs is given in VideoLLaMA 2.1-AV: half a minute of sound as a log-mel spectrogram of Kaldi's form.

As `process_audio_file` and `process_audio_from_video` of the release, of which the second hears pieces of a video.
"""

from __future__ import annotations

import warnings
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.models.adapters.spans import Unit

#: Samples a second; samples that the model is given, silence after them included.
RATE, WINDOW = 16_000, 480_000
#: Pieces of a video's sound, and how long each is in seconds.
_PIECES, _PIECE = 8, 2
#: Length and step of a frame in samples, mel bins, and the side of a patch in frames and bins.
_FRAME, _HOP, _BINS, PATCH = 400, 160, 128, 16
_STEP = PATCH * _HOP
_FRAMES = 1 + (WINDOW - _FRAME) // _HOP
#: Steps in time, patches in each of them, and the number of all tokens, whatever the length of the sound.
STEPS, BANDS = _FRAMES // PATCH, _BINS // PATCH
TOKENS = STEPS * BANDS
#: What the release takes in place of the logarithm's argument where nothing sounds.
_FLOOR = float(np.finfo(np.float32).eps)


def heard_samples(count: int, *, of_video: bool) -> NDArray[np.int64]:
    """Return which samples of a sound the model hears, in the order in which it hears them.

    Of a file it hears the beginning, where the release picks half a minute at random; of a video, eight pieces of two
    seconds that begin at equal distances. Pieces of a short video overlap.

    Parameters
    ----------
    count : int
        Samples of the sound.
    of_video : bool
        Whether it is the sound of a video.

    Returns
    -------
    ndarray of int64
        At most `WINDOW` indices.
    """
    if not of_video:
        return np.arange(min(count, WINDOW))
    step = Fraction(max(count / RATE - _PIECE, 0)) / _PIECES
    begins = [step * i for i in range(_PIECES)]
    return np.concatenate([np.arange(int(b * RATE), min(int((b + _PIECE) * RATE), count)) for b in begins])


def fbank(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the spectrogram of a sound, as `torchaudio.compliance.kaldi.fbank` does in the release.

    Parameters
    ----------
    samples : ndarray of float32
        (N,), N up to `WINDOW`, within -1 and 1. Silence follows them.

    Returns
    -------
    ndarray of float32
        (2998, 128), natural logarithms of the energy in mel bins, of samples as 16-bit integers.
    """
    from transformers.audio_utils import spectrogram, window_function

    # Frames after the sound are silent: they need no transform.
    sounding = min(-(-len(samples) // _HOP), _FRAMES)
    wave = np.zeros(max(sounding - 1, 0) * _HOP + _FRAME)
    wave[: len(samples)] = samples[: len(wave)]
    found = np.full((_FRAMES, _BINS), np.log(_FLOOR), dtype=np.float32)
    if sounding:
        found[:sounding] = spectrogram(
            wave * 2**15,
            window_function(_FRAME, "povey", periodic=False),
            frame_length=_FRAME,
            hop_length=_HOP,
            fft_length=512,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=_mel_filters(),
            mel_floor=_FLOOR,
            log_mel="log",
            remove_dc_offset=True,
        ).T
    return found


def time_units(count: int, *, of_video: bool) -> list[Unit]:
    """Return which seconds of a sound the `TOKENS` stand for.

    Parameters
    ----------
    count, of_video
        See `heard_samples`.

    Returns
    -------
    list of (int, float or None, float or None)
        One for each token: the patches of a step are bands of frequency, and stand for all of its time. The last is
        that of the silence after the sound, where there is some, without a time.
    """
    source = heard_samples(count, of_video=of_video)
    units: list[Unit] = []
    for step in range(min(-(-len(source) // _STEP), STEPS)):
        held = source[step * _STEP : (step + 1) * _STEP]
        # A step may hold the end of one piece and the beginning of the next: the longer part says when it is.
        runs = np.split(held, np.flatnonzero(np.diff(held) != 1) + 1)
        longest = max(runs, key=len)
        units += [(1, float(longest[0]) / RATE, float(longest[-1] + 1) / RATE)] * BANDS
    silent = TOKENS - len(units)
    return [*units, (silent, None, None)] if silent else units


@cache
def _mel_filters() -> Any:
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Some of the lowest bins lie between two frequencies: in Kaldi too.
        return mel_filter_bank(
            num_frequency_bins=257,
            num_mel_filters=_BINS,
            min_frequency=20.0,
            max_frequency=RATE / 2,
            sampling_rate=RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
