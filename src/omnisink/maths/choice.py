"""Where the kernels of `omnisink.kernels` do the work, and where PyTorch's operators do.

The functions of this room are the reference. On a CUDA device their work is done by Triton kernels that give the
same; Triton comes with torch there, and is imported when the first such tensor is seen. Everywhere else, and where a
gradient is asked for, PyTorch's operators do it.
"""

from __future__ import annotations

import importlib.util
import os
import warnings

import torch
from torch import Tensor

#: A variable of the environment: "off" keeps to PyTorch's operators; "interpret" has the kernels run on CPU tensors in
#: Triton's interpreter, which is for tests of them and very slow.
VARIABLE = "OMNISINK_KERNELS"
_CHOICE = os.environ.get(VARIABLE, "")
INTERPRETS = _CHOICE == "interpret"
if INTERPRETS:
    os.environ["TRITON_INTERPRET"] = "1"  # Before Triton is imported.
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_TOLD: set[str] = set()
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def kernels_run_on(*tensors: Tensor) -> bool:
    """Tell whether kernels do the work on these tensors.

    Parameters
    ----------
    *tensors : Tensor
        All floating tensors that take part. The first says where; if one needs a gradient, no kernel runs.

    Returns
    -------
    bool
        False on every CPU tensor, but for tests.
    """
    first = tensors[0]
    if first.is_cpu:
        if _CHOICE != "interpret":
            return False
    elif _CHOICE == "off" or not ((_HAS_TRITON and first.is_cuda) or _available(first.device.type)):
        return False
    wants_gradients = torch.is_grad_enabled()
    # A loop: this is asked several times a layer, and a generator takes thrice as long.
    for tensor in tensors:  # noqa: SIM110
        if tensor.dtype not in _DTYPES or (wants_gradients and tensor.requires_grad):
            return False
    return True


def _available(device: str) -> bool:
    """Whether there are kernels for a kind of device; says so once where there are none."""
    if device == "cuda" and _HAS_TRITON:
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
