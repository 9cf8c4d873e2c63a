"""The one place where kernels are launched: cheaply, and counted.

Triton's own launcher looks at every argument again to find the compiled kernel, which takes longer than most of these
kernels run. Here a compiled kernel is kept under what it was specialized on, and called directly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

#: Kernels by what they were compiled for.
_COMPILED: dict[tuple[Any, ...], Any] = {}
#: For every kernel, which of its arguments are compiled for whatever value they have.
_GENERAL: dict[Any, tuple[bool, ...]] = {}
#: Those who count launches now.
_COUNTING: list[Counter[str]] = []
#: Kernels of which the direct call has failed, so that Triton's own launcher is used.
_INDIRECT: set[Any] = set()


@contextmanager
def count_launches() -> Iterator[Counter[str]]:
    """Count the launches of a block by the kernel's name, for tests."""
    counter: Counter[str] = Counter()
    _COUNTING.append(counter)
    try:
        yield counter
    finally:
        _COUNTING.remove(counter)


def launch(kernel: Any, grid: tuple[int, int, int], *args: Any, num_warps: int = 4, **constants: Any) -> None:
    """Run a kernel on the device of its first argument.

    Parameters
    ----------
    kernel : triton.JITFunction
        The kernel; its constants come last in its signature.
    grid : tuple of int
        Programs in three dimensions.
    *args : Tensor, int or float
        All other arguments in order. The first is a tensor.
    num_warps : int
        Warps of a program.
    **constants : int or bool
        The ``tl.constexpr`` arguments, in the order of the signature.
    """
    if torch.compiler.is_compiling():
        kernel[grid](*args, **constants, num_warps=num_warps)
        return
    for counter in _COUNTING:
        counter[_name(kernel)] += 1
    device = args[0].device
    if device.type != "cuda" or not isinstance(kernel, JITFunction):  # Triton's interpreter.
        kernel[grid](*args, **constants, num_warps=num_warps)
        return
    # Triton launches on the current device, which need not be that of a layer.
    here = torch.cuda.current_device() == device.index
    with nullcontext() if here else torch.cuda.device(device):
        key = (kernel, device.index, num_warps, *constants.values(), *_specialization(kernel, args))
        compiled = _COMPILED.get(key)
        if compiled is None:
            compiled = kernel[grid](*args, **constants, num_warps=num_warps)
            if kernel not in _INDIRECT and compiled is not None:
                _COMPILED[key] = compiled
            return
        try:
            compiled[grid](*args, *constants.values())
        except TypeError:
            # This Triton takes other arguments here; nothing has been launched.
            _INDIRECT.add(kernel)
            for known in [k for k in _COMPILED if k[0] is kernel]:
                del _COMPILED[known]
            kernel[grid](*args, **constants, num_warps=num_warps)


def _name(kernel: Any) -> str:
    return str(kernel.fn.__name__)


def _specialization(kernel: Any, args: tuple[Any, ...]) -> list[Any]:
    """Return what Triton compiles a kernel for: dtypes and alignment of tensors, and divisibility of integers."""
    general = _GENERAL.get(kernel)
    if general is None:
        general = _GENERAL[kernel] = tuple(bool(p.do_not_specialize) for p in kernel.params)
    found: list[Any] = []
    for arg, any_value in zip(args, general, strict=False):
        if isinstance(arg, Tensor):
            found += (arg.dtype, arg.data_ptr() % 16 == 0)
        elif isinstance(arg, int):
            wide = not -(1 << 31) <= arg < 1 << 31
            found.append(wide if any_value else (wide, arg == 1, arg % 16 == 0))
    return found
