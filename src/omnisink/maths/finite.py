"""Tell numbers from what overflowed or was never one: NaN and infinite activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnisink.maths.sinks import token_magnitude


def nonfinite_tokens(magnitude: Tensor, token_mask: Tensor | None = None) -> Tensor:
    """Mark the real tokens whose residual stream is not finite.

    Parameters
    ----------
    magnitude : Tensor
        (..., S) float, the largest absolute activation of every token, as `token_magnitude` returns it. It must be NaN
        where any activation is NaN: a kernel that writes it has to propagate NaN through its maximum.
    token_mask : Tensor, optional
        (..., S) bool, False at padding, which may hold anything. None: every token is real.

    Returns
    -------
    Tensor
        (..., S) bool. Nothing waits for the accelerator.
    """
    bad = ~magnitude.isfinite()
    return bad if token_mask is None else bad & token_mask


def nonfinite_by_layer(magnitudes: Sequence[Tensor], token_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mark the layers with a real token that is NaN, and those with one that is infinite.

    Parameters
    ----------
    magnitudes : sequence of Tensor
        L times (B, S) float32, see `nonfinite_tokens`.
    token_mask : Tensor, optional
        (B, S) bool, False at padding.

    Returns
    -------
    tuple of Tensor
        (L,) bool, layers with NaN; (L,) bool, layers with infinite activations. On the device of the first, or on
        the CPU for no layers. Nothing waits for the accelerator.
    """
    if not magnitudes:
        return torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.bool)
    device = magnitudes[0].device
    stacked = torch.stack([magnitude.to(device) for magnitude in magnitudes])
    bad = nonfinite_tokens(stacked, None if token_mask is None else token_mask.to(device))
    return (bad & stacked.isnan()).any(dim=(1, 2)), (bad & stacked.isinf()).any(dim=(1, 2))


def any_nonfinite(hidden: Tensor, token_mask: Tensor | None = None) -> Tensor:
    """Tell whether any real token of a residual stream is not finite.

    Parameters
    ----------
    hidden : Tensor
        (B, S, d), any floating dtype.
    token_mask : Tensor, optional
        (B, S) bool, False at padding.

    Returns
    -------
    Tensor
        Bool scalar on the device of `hidden`. Nothing waits for the accelerator.
    """
    return nonfinite_tokens(token_magnitude(hidden.detach()), token_mask).any()
