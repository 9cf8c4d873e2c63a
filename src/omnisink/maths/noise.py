"""Gaussian noise on pixels and sound as diffusion adds it, the same for one input whatever stands beside it."""

from __future__ import annotations

import torch
from torch import Tensor

#: Steps of the schedule, and the smallest and the largest variance that one step adds.
STEPS = 1000
_LEAST, _MOST = 1e-5, 5e-3


def share_of_signal(step: int) -> float:
    """Return the share of the variance that is left of the signal after `step` steps, counted from 0.

    The variance that step i of 1,000 adds rises from 1e-5 to 5e-3 along a sigmoid between -6 and 6; what is left is
    the product of one minus it (Leng et al., VCD, arXiv 2311.16922).
    """
    rising = torch.sigmoid(torch.linspace(-6, 6, STEPS, dtype=torch.float64))
    return float((1 - (rising * (_MOST - _LEAST) + _LEAST))[: step + 1].prod())


def noisy(signal: Tensor, step: int, seed: int) -> Tensor:
    """Return ``sqrt(a) signal + sqrt(1 - a) noise`` with ``a = share_of_signal(step)``.

    Parameters
    ----------
    signal : Tensor
        (N, ...), any floating dtype, N at least 1.
    step : int
        From 0, nearly the signal, to 999, nearly noise.
    seed : int
        Of the noise. It is drawn row by row on the CPU, so that a longer signal begins with the noise of a shorter one
        whose rows have the same shape, and every device gets the same.

    Returns
    -------
    Tensor
        Of the same shape, dtype and device.
    """
    left = share_of_signal(step)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.stack([torch.randn(signal.shape[1:], generator=generator) for _ in signal]).to(signal.device)
    return (left**0.5 * signal.float() + (1 - left) ** 0.5 * noise).to(signal.dtype)
