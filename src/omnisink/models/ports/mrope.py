"""Positions of video-SALMONN 2+ in time, height and width, as its data code counts them for training.

They are those of Qwen2.5-VL, with sound between the frames. In a video with sound the frames and the sound are counted
from the same beginning: the sound goes along time and width, one position a token.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor

#: Types of tokens, as `mm_token_type_ids` has them.
TEXT, IMAGE, VIDEO, AUDIO = range(4)


def count_positions(
    types: Tensor, token_mask: Tensor, pictures: Any, videos: Any, seconds: Any, merge: int, rate: float
) -> tuple[Tensor, Tensor]:
    """Count the positions of prompts.

    Parameters
    ----------
    types : Tensor
        (B, S) int, what each token is.
    token_mask : Tensor
        (B, S) bool, False at padding.
    pictures, videos : Tensor or None
        (N, 3), patches of each picture and video in time, height and width, in the order of their placeholders.
    seconds : Tensor or None
        (N,), seconds from one step of each video to the next; None is 1.
    merge : int
        Patches along a side that become one token.
    rate : float
        Positions in a second of a video.

    Returns
    -------
    tuple of Tensor
        (3, B, S) int64, 0 at padding; and (B, 1), how far the next position is from the number of tokens.
    """
    grids = {IMAGE: _each(pictures), VIDEO: _each(videos)}
    steps = iter([1.0] * len(types) if seconds is None else seconds)
    positions = torch.zeros(3, *types.shape, dtype=torch.int64, device=types.device)
    ahead = []
    for row, kept in enumerate(token_mask):
        made, start = [], 0
        for _, group in groupby(types[row][kept].tolist(), key=lambda kind: min(kind, VIDEO)):
            kinds = torch.tensor(list(group), device=types.device)
            if kinds[0] == TEXT:
                block = torch.arange(len(kinds), device=types.device).expand(3, -1)
            elif kinds[0] == IMAGE:
                block = _grid(next(grids[IMAGE]), merge, 1.0).to(types.device)
            else:
                block = _clip(kinds, grids[VIDEO], steps, merge, rate)
            made.append(block + start)
            # After sound the text goes on in time, wherever the rows and columns of the frames have come to.
            start = int((made[-1][:1] if (kinds == AUDIO).any() else made[-1]).max()) + 1
        positions[:, row, kept] = torch.cat(made, dim=1)
        ahead.append(int(positions[:, row].max()) + 1 - int(kept.sum()))
    return positions, torch.tensor(ahead, device=types.device).unsqueeze(1)


def steps_in_time(count: int, seconds: Any, rate: float) -> Tensor:
    """Return the position in time of each step of a video, (T,) int64."""
    return (torch.arange(count) * seconds * rate).long()


def _clip(kinds: Tensor, grids: Any, steps: Any, merge: int, rate: float) -> Tensor:
    """Count a video, a sound, or both."""
    block = torch.zeros(3, len(kinds), dtype=torch.int64, device=kinds.device)
    seen, heard = kinds == VIDEO, kinds == AUDIO
    if seen.any():
        step = next(steps)
        step = step.cpu() if isinstance(step, Tensor) else step
        block[:, seen] = _grid(next(grids), merge, step * rate).to(kinds.device)
    if heard.any():
        along = torch.arange(int(heard.sum()), device=kinds.device)
        # A sound of its own goes along time and height, one with a video along time and width.
        rest = torch.zeros_like(along)
        block[:, heard] = torch.stack([along, rest, along] if seen.any() else [along, along, rest])
    return block


def _grid(grid: Tensor, merge: int, interval: Any) -> Tensor:
    """Count the tokens of a video step by step, row by row, (3, N)."""
    count, high, wide = (int(size) for size in grid)
    axes = (steps_in_time(count, interval, 1.0), torch.arange(high // merge), torch.arange(wide // merge))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)


def _each(grids: Any) -> Any:
    return iter(()) if grids is None else iter(grids)
