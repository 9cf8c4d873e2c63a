"""Times and frame rate of a clip, for processors that write times into the prompt."""

from __future__ import annotations

from typing import Any

from omnisink.media import Clip

#: A clock fine enough for the true time of every frame, also where the rate varies.
_TICKS = 1000


def video_metadata(clip: Clip) -> Any:
    """Return transformers' `VideoMetadata` of the kept frames.

    Its frame numbers count milliseconds, so that the times that processors work out from them are the true ones.

    Parameters
    ----------
    clip : Clip
        With frames.

    Returns
    -------
    VideoMetadata
        Its `timestamps` are the clip's times, and its `sampled_fps` is the rate of the kept frames.
    """
    from transformers.video_utils import VideoMetadata

    assert clip.frames is not None
    assert clip.times is not None
    ticks = [round(float(time) * _TICKS) for time in clip.times]
    return VideoMetadata(
        total_num_frames=max(1, round(len(ticks) / sampled_rate(clip) * _TICKS)),
        fps=float(_TICKS),
        height=clip.frames.shape[1],
        width=clip.frames.shape[2],
        duration=clip.record.duration,
        video_backend=clip.record.backend,
        frames_indices=ticks,
    )


def sampled_rate(clip: Clip) -> float:
    """Return how many frames of a second were kept, on average; 1 for a still picture."""
    assert clip.times is not None
    span = float(clip.times[-1] - clip.times[0])
    return (len(clip.times) - 1) / span if span > 0 else 1.0
