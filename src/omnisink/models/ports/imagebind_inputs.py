"""What ImageBind sees and hears: pictures, clips of two frames, and mel spectrograms, made as in the released code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

#: Mean and standard deviation of CLIP's pictures.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: Samples per second of sound, seconds and number of its clips, and mel bins and frames of each.
RATE, SECONDS, CLIPS, BINS, LENGTH = 16_000, 2, 3, 128, 204
#: The shortest sound that has a frame of 25 ms.
SHORTEST = 400


def see_picture(picture: NDArray[np.uint8], side: int) -> Tensor:
    """Return a picture (H, W, 3) as a clip (1, 3, 2, side, side): its middle, after the shorter side is `side`."""
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transform

    small = transform.resize(Image.fromarray(picture), side, InterpolationMode.BICUBIC)
    pixels = transform.normalize(transform.to_tensor(transform.center_crop(small, [side, side])), _MEAN, _STD)
    return twice(pixels)


def see_nothing(side: int) -> Tensor:
    """Return the clip that stands for no media: zeros, which the model was tuned with on questions of text."""
    return twice(torch.zeros(3, side, side))


def twice(pixels: Tensor) -> Tensor:
    """Return a picture (3, H, W) as a clip of two equal frames, (1, 3, 2, H, W)."""
    return pixels.unsqueeze(1).expand(-1, 2, -1, -1).unsqueeze(0)


def see_video(frames: NDArray[np.uint8], pairs: Sequence[tuple[int, int]], side: int) -> Tensor:
    """Return clips of a video, each in three crops along its longer side.

    Parameters
    ----------
    frames : ndarray of uint8
        (N, H, W, 3).
    pairs : sequence of (int, int)
        First and last frame of each of C clips.
    side : int
        Of a crop, in pixels.

    Returns
    -------
    Tensor
        (3 * C, 3, 2, side, side).
    """
    from torchvision.transforms.functional import normalize

    height, width = frames.shape[1:3]
    shorter = min(height, width)
    size = [side if edge == shorter else int(edge / shorter * side) for edge in (height, width)]
    # One after the other: a frame of 4K takes 100 MB as floats.
    small = [F.interpolate(f.permute(2, 0, 1)[None] / 255, size, mode="bilinear") for f in torch.from_numpy(frames)]
    pixels = normalize(torch.cat(small), _MEAN, _STD)
    along = 2 if height > width else 3
    over = pixels.shape[along] - side
    crops = [pixels.narrow(along, start, side) for start in (0, -(-over // 2), over)]
    return torch.stack([crop[list(pair)].transpose(0, 1) for pair in pairs for crop in crops])


def hear(samples: NDArray[np.float32]) -> Tensor:
    """Return the mel spectrograms of three clips of two seconds, evenly spaced, as (3, 1, 128, 204).

    A shorter sound is heard three times, and what it lacks of two seconds is 0 before the spectrogram is normalised.

    Parameters
    ----------
    samples : ndarray of float32
        (M,), 16,000 a second, `SHORTEST` or more.
    """
    room = max(len(samples) - SECONDS * RATE, 0)
    starts = [int(room * i / (CLIPS - 1)) for i in range(CLIPS)]
    clips = [samples[start : start + SECONDS * RATE] for start in starts]
    made = _extractor()([clip - clip.mean() for clip in clips], sampling_rate=RATE, return_tensors="pt")
    return made["input_values"].mT.unsqueeze(1)  # type: ignore[no-any-return]


@cache
def _extractor() -> Any:
    """Return Kaldi's filter banks with ImageBind's mean and deviation, of which the extractor takes half."""
    from transformers import ASTFeatureExtractor

    with warnings.catch_warnings():
        # Some of the lowest mel bins lie between two frequencies and are empty, as they are in the release.
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
        return ASTFeatureExtractor(num_mel_bins=BINS, max_length=LENGTH, mean=-4.268, std=9.138 / 2)
