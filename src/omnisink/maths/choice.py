"""Where the kernels of `omnisink.kernels` do the work, and where PyTorch's operators do.

The functions of this room are the reference. On a CUDA device their work is done by Triton kernels that give the
same; Triton comes with torch there, and is imported when the first such tensor is seen. Everywhere else, and where a
gradient is asked for, PyTorch's operators do it.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from omnisink.maths.kernel_devices import known

#: A variable of the environment: "off" keeps to PyTorch's operators; "interpret" has the kernels run on CPU tensors in
#: Triton's interpreter, which is for tests of them and very slow.
VARIABLE = "OMNISINK_KERNELS"
_CHOICE = os.environ.get(VARIABLE, "")
INTERPRETS = _CHOICE == "interpret"
if INTERPRETS:
    os.environ["TRITON_INTERPRET"] = "1"  # Before Triton is imported.
_HAS_TRITON = importlib.util.find_spec("triton") is not None
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
    elif _CHOICE == "off" or not ((_HAS_TRITON and first.is_cuda) or known(first.device.type, _HAS_TRITON)):
        return False
    wants_gradients = torch.is_grad_enabled()
    # A loop: this is asked several times a layer, and a generator takes thrice as long.
    for tensor in tensors:  # noqa: SIM110
        if tensor.dtype not in _DTYPES or (wants_gradients and tensor.requires_grad):
            return False
    return True
