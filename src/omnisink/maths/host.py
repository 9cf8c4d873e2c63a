"""Whether the host may look at a tensor's values without making an accelerator wait."""

from __future__ import annotations

import torch
from torch import Tensor


def host_may_look(tensor: Tensor) -> bool:
    """Tell whether branching on the values of `tensor` is free.

    On the CPU the values are already here, so work that turns out unnecessary can be left out. On an accelerator a
    look stalls the queue, and in a graph being compiled there is nothing to look at yet: there the same result must
    come from tensor operations of fixed shape.

    Parameters
    ----------
    tensor : Tensor
        Any tensor of the computation.

    Returns
    -------
    bool
        True for an eager CPU tensor, False otherwise.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
