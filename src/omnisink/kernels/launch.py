"""The one place where kernels are launched: cheaply, and counted.

Triton's own launcher looks at every argument again to find the compiled kernel, which takes longer than most of these
kernels run, and in an eager decode step the host is what everything waits for. Here a compiled kernel is kept under
what it was specialized on, and called directly with addresses and numbers.
"""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.runtime import driver
from triton.runtime.jit import JITFunction

#: Every kernel that has been launched, by its id: its own hash is computed in Python, under a lock.
_KERNELS: dict[int, _Kernel] = {}
#: Not empty once it has been said that direct calls fail.
_SAID: list[bool] = []
#: Those who count launches now.
COUNTING: list[Counter[str]] = []


class _Kinds(dict[int, int]):
    """What Triton makes of an integer that it compiles for: whether it is one, 16 divides it, and 32 bits hold it."""

    def __missing__(self, value: int) -> int:
        if len(self) > 1 << 16:  # Strides follow the lengths of prompts.
            self.clear()
        kind = self[value] = (value == 1) + 2 * (value % 16 == 0) + 4 * (value > INT32)
        return kind


_KINDS = _Kinds()
INT32 = (1 << 31) - 1
address_of = Tensor.data_ptr
_dtype = operator.attrgetter("dtype")
#: `torch.cuda.current_device` asks first whether CUDA has been initialized, which a tensor on it answers.
current_device = getattr(torch._C, "_cuda_getDevice", torch.cuda.current_device)
#: Where Triton keeps what it calls at every launch: since 3.4 with its other settings, before on the compiled kernel.
_HOOKS: Any = triton.knobs.runtime if hasattr(triton, "knobs") else triton.compiler.CompiledKernel


@contextmanager
def count_launches() -> Iterator[Counter[str]]:
    """Count the launches of a block by the kernel's name, for tests."""
    counter: Counter[str] = Counter()
    COUNTING.append(counter)
    try:
        yield counter
    finally:
        COUNTING.remove(counter)


class Compiled(NamedTuple):
    """What a direct call of a compiled kernel takes; an attribute of Triton's own object costs a look each time."""

    run: Any
    function: Any
    metadata: Any
    stream_of: Callable[[int], int]
    #: Triton's own object, held because newer releases unload the function when that is gone.
    kernel: Any


def launch(
    kernel: Any, grid: tuple[int, int, int], *args: Any, num_warps: int = 4, **constants: Any
) -> Compiled | None:
    """Run a kernel on the device of its first argument.

    Parameters
    ----------
    kernel : triton.JITFunction
        The kernel; its constants come last in its signature.
    grid : tuple of int
        Programs in three dimensions.
    *args : Tensor, int or float
        All other arguments in order, tensors first; of each argument always the same type. Bool tensors are handed
        over as int8, which is what they are in memory.
    num_warps : int
        Warps of a program.
    **constants : int or bool
        The ``tl.constexpr`` arguments, in the order of the signature.

    Returns
    -------
    Compiled or None
        What has been called, if it was called directly.
    """
    if torch.compiler.is_compiling():
        kernel[grid](*_bytes_of(args), **constants, num_warps=num_warps)
        return None
    for counter in COUNTING:
        counter[str(kernel.fn.__name__)] += 1
    index = args[0].get_device()
    if index < 0 or not isinstance(kernel, JITFunction):  # Triton's interpreter.
        kernel[grid](*_bytes_of(args), **constants, num_warps=num_warps)
        return None
    # Triton launches on the current device, which need not be that of a layer.
    if current_device() == index:
        return _launch_here(kernel, grid, args, num_warps, constants, index)
    with torch.cuda.device(index):
        return _launch_here(kernel, grid, args, num_warps, constants, index)


class _Kernel:
    """A kernel, which of its arguments it is compiled for, and what has been compiled.

    Triton compiles for dtypes, for addresses that 16 divides, and for the values of integers, but for the arguments
    that a kernel takes as they come (``do_not_specialize``): of such an integer it only matters whether 32 bits hold
    it, of such a tensor nothing but the dtype. Floats are never compiled for.
    """

    def __init__(self, kernel: Any, args: tuple[Any, ...]) -> None:
        self.kernel = kernel  # Held, so that the id it is found by stays its own.
        self.tensors = sum(isinstance(arg, Tensor) for arg in args)
        whole = [i for i, arg in enumerate(args) if isinstance(arg, int)]
        as_it_comes = [bool(parameter.do_not_specialize) for parameter in kernel.params]
        self.settled = _picker([i for i in whole if not as_it_comes[i]])
        self.varying = _picker([i for i in whole if as_it_comes[i]])
        self.aligned = _picker([i for i, aligned in enumerate(alignments(kernel, self.tensors)) if aligned])
        self.compiled: dict[tuple[Any, ...], Compiled] = {}
        self.direct = torch.version.hip is None  # There Triton also compiles for the size of what is pointed at.

    def key(
        self, index: int, num_warps: int, constants: dict[str, Any], args: tuple[Any, ...], addresses: list[int]
    ) -> tuple[Any, ...]:
        """Return all that decides which compiled kernel these arguments need; `addresses` are those of the tensors."""
        varying, aligned = self.varying(args), self.aligned(addresses)
        return (
            index,
            num_warps,
            *constants.values(),
            *map(_KINDS.__getitem__, self.settled(args)),
            *map(_dtype, args[: self.tensors]),
            # One look at all of them together nearly always says that none is large, and that each is aligned.
            max(varying, default=0) > INT32 and tuple(number > INT32 for number in varying),
            reduce(operator.or_, aligned, 0) & 15 and tuple(address & 15 == 0 for address in aligned),
        )


def _launch_here(
    kernel: Any,
    grid: tuple[int, int, int],
    args: tuple[Any, ...],
    num_warps: int,
    constants: dict[str, Any],
    index: int,
) -> Compiled | None:
    """Launch on the current device, whose index is given."""
    known = _KERNELS.get(id(kernel))
    if known is None:
        known = _KERNELS[id(kernel)] = _Kernel(kernel, args)
    if not known.direct or is_profiled():
        kernel[grid](*_bytes_of(args), **constants, num_warps=num_warps)
        return None
    addresses = [*map(address_of, args[: known.tensors])]
    key = known.key(index, num_warps, constants, args, addresses)
    found = known.compiled.get(key)
    if found is not None:
        run, function, metadata, stream_of, _ = found
        try:
            # Without the metadata of Triton's profiler, which is made in Python: nobody profiles.
            run(
                *grid, stream_of(index), function, metadata, None, None, None,
                *addresses, *args[known.tensors :], *constants.values(),
            )  # fmt: skip
        except Exception as error:  # Of whatever kind: nothing comes after the launch that could fail.
            leave_to_triton(kernel, error, lambda: kernel[grid](*_bytes_of(args), **constants, num_warps=num_warps))
            return None
        return found
    compiled = kernel[grid](*_bytes_of(args), **constants, num_warps=num_warps)
    if compiled is not None:  # None where a hook of Triton's has compiled it elsewhere.
        try:
            known.compiled[key] = Compiled(
                compiled.run, compiled.function, compiled.packed_metadata, driver.active.get_current_stream, compiled
            )
        except AttributeError as error:
            leave_to_triton(kernel, error)
    return None


def leave_to_triton(kernel: Any, failure: Exception, launch_it: Callable[[], object] | None = None) -> None:
    """Leave a kernel to Triton's own launcher from now on, with the same results, and say once why.

    Parameters
    ----------
    kernel : triton.JITFunction
        The kernel.
    failure : Exception
        What the direct call has raised: a release of Triton may take other arguments, or keep a compiled kernel in
        another way, than those that are known.
    launch_it : callable, optional
        Launches it that way. Where the device has failed, not the call, this raises, and nothing else is said.
    """
    known = _KERNELS.get(id(kernel))
    if known is not None:
        known.direct = False
        known.compiled.clear()
    if launch_it is not None:
        launch_it()
    if not _SAID:
        _SAID.append(True)
        warnings.warn(
            f"the kernels are launched by Triton's own launcher, which takes the host longer: a direct call failed "
            f"with Triton {triton.__version__} ({type(failure).__name__}: {failure})",
            RuntimeWarning,
            stacklevel=2,
        )


def alignments(kernel: Any, tensors: int) -> list[bool]:
    """Tell of the first arguments, which are tensors, whether a kernel is compiled for their alignment."""
    if not isinstance(kernel, JITFunction):  # Triton's interpreter.
        return [True] * tensors
    return [
        not (parameter.do_not_specialize or getattr(parameter, "do_not_specialize_on_alignment", False))
        for parameter in kernel.params[:tensors]
    ]


def is_profiled() -> bool:
    """Whether somebody has asked Triton to be called at every launch, as its profiler does."""
    try:  # Newer releases keep chains of hooks, which are there when they are empty too.
        return bool(_HOOKS.launch_enter_hook.calls or _HOOKS.launch_exit_hook.calls)
    except AttributeError:
        hooks = (getattr(_HOOKS, name, None) for name in ("launch_enter_hook", "launch_exit_hook"))
        return any(hook is not None and getattr(hook, "calls", True) for hook in hooks)


def _picker(where: list[int]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what takes the values at some places out of all of them."""
    if len(where) > 1:
        return operator.itemgetter(*where)
    return lambda values: tuple(values[i] for i in where)


def _bytes_of(args: tuple[Any, ...]) -> list[Any]:
    return [arg.view(torch.int8) if isinstance(arg, Tensor) and arg.dtype == torch.bool else arg for arg in args]
