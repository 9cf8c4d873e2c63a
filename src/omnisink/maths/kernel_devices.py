"""Which kinds of devices have kernels, told once where they have none."""

from __future__ import annotations

import warnings

import torch

_TOLD: set[str] = set()


def known(device: str, has_triton: bool) -> bool:
    """Whether there are kernels for a kind of device; says so once where there are none."""
    if device == "cuda" and has_triton:
        return True
    if device != "meta" and not torch.compiler.is_compiling() and device not in _TOLD:
        _TOLD.add(device)
        why = "Triton is not installed" if device == "cuda" else "they are written for CUDA devices"
        warnings.warn(
            f"OutRo runs on {device} by PyTorch's operators, which cost several times what its kernels cost: {why}",
            RuntimeWarning,
            stacklevel=2,
        )
    return False
