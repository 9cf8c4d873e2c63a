"""The control of the rotation: by the same angles, toward something else."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.maths.rotation import turn

_TINY = torch.finfo(torch.float32).tiny


def rotate_by_same_angle(
    output: Tensor, direction: Tensor, toward: Tensor, *, gamma: float, tau: float, frozen: Tensor | None = None
) -> Tensor:
    """Turn every head output by the angle that `rotate` would turn it by, but toward something else.

    The control of the rotation: gate, angle and length are those that the sink's value gives, so that the direction
    alone differs. The turn is in the plane of the output and `toward`.

    Parameters
    ----------
    output, direction, gamma, tau, frozen
        As for `rotate`; gamma is not negative.
    toward : Tensor
        Unit vectors, (B, H, D), float32; a zero vector leaves its head as it is, and so does one parallel to an
        output, which spans no plane with it.

    Returns
    -------
    Tensor
        A new tensor, (B, S, H, D) in the dtype of `output`, computed in float32.
    """
    wide, aim = output.float(), toward[:, None]
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    along, rescale = turn(wide, direction[:, None], gamma, tau, frozen)
    unit = wide / length.clamp(min=_TINY)
    towards, aside = _resolve(direction[:, None], unit)
    # Sine and cosine of the angle, each by itself: from the cosine alone a small angle could not be told from none.
    step = rescale * along / length.clamp(min=_TINY)
    cosine = rescale + step * towards
    sine = step * torch.linalg.vector_norm(aside, dim=-1, keepdim=True)
    _, across = _resolve(aim, unit)
    breadth = torch.linalg.vector_norm(across, dim=-1, keepdim=True)
    turned = length * (cosine * unit + sine * across / breadth.clamp(min=_TINY))
    stay = (along == 0) | (breadth <= torch.finfo(torch.float32).eps)
    return torch.where(stay, wide, turned).to(output.dtype)


def _resolve(vector: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far a vector goes along a unit vector, (..., 1), and what is left of it across."""
    along = (vector * unit).sum(dim=-1, keepdim=True)
    return along, vector - along * unit
