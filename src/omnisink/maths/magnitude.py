"""Every token's largest activation, and whether it is a number."""

from __future__ import annotations

import torch
from torch import Tensor

#: Elements up to which a copy of a residual stream is less than the calls that would save it.
_FEW = 1 << 20


def token_magnitude(hidden: Tensor) -> Tensor:
    """Largest absolute activation of every token, ``m_t = max_i |h[t, i]|``, (B, S) float32.

    It takes a residual stream (B, S, d) of any floating dtype. A maximum loses nothing in half precision, so only the
    result is widened.
    """
    return torch.maximum(hidden.amax(dim=-1), -hidden.amin(dim=-1)).float()


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


def any_nonfinite(hidden: Tensor, token_mask: Tensor | None = None) -> Tensor:
    """Return a bool scalar, on the device, that tells whether any real token of a residual stream is not finite.

    See `token_magnitude` and `nonfinite_tokens` for what it takes.
    """
    if hidden.requires_grad:
        hidden = hidden.detach()
    if token_mask is None and hidden.numel() <= _FEW:
        return (hidden * 0).sum().isnan()  # Few operations, which is what counts where there is little to compute.
    return nonfinite_tokens(token_magnitude(hidden), token_mask).any()


def stacked(magnitudes: dict[int, Tensor]) -> Tensor:
    """Return magnitudes of the same shape (B, S) as one tensor: an operation for all layers, not one for each."""
    device = next(iter(magnitudes.values())).device
    return torch.stack([m if m.device == device else m.to(device) for m in magnitudes.values()])
