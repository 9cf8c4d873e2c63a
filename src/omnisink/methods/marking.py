"""Mark sinks by any criterion, and check what it returns."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.methods.criterion import Criterion, MassiveActivation, describe


def mark_sinks(criterion: Criterion, hidden: Tensor, token_mask: Tensor | None, magnitude: Tensor) -> Tensor:
    """Mark sinks by any criterion, (B, S) bool, where the largest activation of every token (B, S) is known.

    Raises
    ------
    OmnisinkError
        If the criterion returns something else.
    """
    if type(criterion) is MassiveActivation:
        return criterion(hidden, token_mask, magnitude)
    found = criterion(hidden.detach(), token_mask)
    if not isinstance(found, Tensor) or found.dtype != torch.bool or found.shape != magnitude.shape:
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise OmnisinkError(
            f"the criterion {describe(criterion)['name']} must mark tokens by a bool tensor of the prompt's shape "
            f"{tuple(magnitude.shape)}, got {what}"
        )
    return (found if token_mask is None else found & token_mask).contiguous()
