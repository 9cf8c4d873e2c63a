"""The one place where kernels are launched: cheaply, and counted.

Triton's own launcher looks at every argument again to find the compiled kernel, which takes longer than most of these
kernels run, and in an eager decode step the host is what everything waits for. Here a compiled kernel is kept under
what it was specialized on, and called directly with addresses and numbers.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.runtime import driver
from triton.runtime.jit import JITFunction

#: Every kernel that has been launched, by its id: its own hash is computed in Python, under a lock.
_KERNELS: dict[int, _Kernel] = {}
#: Those who count launches now.
_COUNTING: list[Counter[str]] = []


class _Kinds(dict[int, int]):
    """What Triton makes of an integer that it compiles for: whether it is one, 16 divides it, and 32 bits hold it."""

    def __missing__(self, value: int) -> int:
        if len(self) > 1 << 16:  # Strides follow the lengths of prompts.
            self.clear()
        kind = self[value] = (value == 1) + 2 * (value % 16 == 0) + 4 * (value > _INT32)
        return kind


_KINDS = _Kinds()
_INT32 = (1 << 31) - 1
_address = Tensor.data_ptr
_dtype = operator.attrgetter("dtype")
#: `torch.cuda.current_device` asks first whether CUDA has been initialized, which a tensor on it answers.
_current_device = getattr(torch._C, "_cuda_getDevice", torch.cuda.current_device)


@contextmanager
def count_launches() -> Iterator[Counter[str]]:
    """Count the launches of a block by the kernel's name, for tests."""
    counter: Counter[str] = Counter()
    _COUNTING.append(counter)
    try:
        yield counter
    finally:
        _COUNTING.remove(counter)


class Compiled(NamedTuple):
    """What a direct call of a compiled kernel takes; an attribute of Triton's own object costs a look each time."""

    run: Any
    function: Any
    metadata: Any
    stream_of: Callable[[int], int]


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
    for counter in _COUNTING:
        counter[str(kernel.fn.__name__)] += 1
    index = args[0].get_device()
    if index < 0 or not isinstance(kernel, JITFunction):  # Triton's interpreter.
        kernel[grid](*_bytes_of(args), **constants, num_warps=num_warps)
        return None
    # Triton launches on the current device, which need not be that of a layer.
    if _current_device() == index:
        return _launch_here(kernel, grid, args, num_warps, constants, index)
    with torch.cuda.device(index):
        return _launch_here(kernel, grid, args, num_warps, constants, index)


class PreparedLaunch:
    """A launch of which all is settled but the first argument, a tensor that is laid out as before.

    What `launch` looks up at every call, this looks up once: a decode step launches one kernel at every layer, and
    only the address of the head outputs is new.

    Parameters
    ----------
    kernel, grid, *args, num_warps, **constants
        As for `launch`. All tensors but the first stay where they are.
    """

    def __init__(
        self, kernel: Any, grid: tuple[int, int, int], *args: Any, num_warps: int = 4, **constants: Any
    ) -> None:
        first, *others = args
        self._kernel, self._grid, self._num_warps = kernel, grid, num_warps
        self._others, self._constants = others, constants
        self._shape, self._strides, self._dtype = first.shape, first.stride(), first.dtype
        self._index = first.get_device()
        self._compiled: Compiled | None = None
        addresses = [arg.data_ptr() if isinstance(arg, Tensor) else arg for arg in others]
        self._rest = (*addresses, *constants.values())

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor is laid out as the first argument was."""
        return (
            tensor.shape == self._shape
            and tensor.stride() == self._strides
            and tensor.dtype == self._dtype
            and tensor.get_device() == self._index
        )

    def __call__(self, tensor: Tensor) -> None:
        """Launch it on a tensor that fits."""
        address = tensor.data_ptr()
        if self._compiled is None or address & 15 or _COUNTING or _current_device() != self._index:
            # The first times, `launch` finds out whether the direct call works.
            self._compiled = launch(
                self._kernel, self._grid, tensor, *self._others, num_warps=self._num_warps, **self._constants
            )
            return
        run, function, metadata, stream_of = self._compiled
        run(*self._grid, stream_of(self._index), function, metadata, None, None, None, address, *self._rest)


class _Kernel:
    """A kernel, which of its arguments it is compiled for, and what has been compiled.

    Triton compiles for dtypes, for addresses that 16 divides, and for the values of integers, but for the arguments
    that a kernel takes as they come (``do_not_specialize``), of which it only matters whether they fit into 32 bits.
    Floats are never compiled for.
    """

    def __init__(self, kernel: Any, args: tuple[Any, ...]) -> None:
        self.kernel = kernel  # Held, so that the id it is found by stays its own.
        self.tensors = sum(isinstance(arg, Tensor) for arg in args)
        whole = [i for i, arg in enumerate(args) if isinstance(arg, int)]
        as_it_comes = [bool(parameter.do_not_specialize) for parameter in kernel.params]
        self.settled = _picker([i for i in whole if not as_it_comes[i]])
        self.varying = _picker([i for i in whole if as_it_comes[i]])
        self.compiled: dict[tuple[Any, ...], Compiled] = {}
        self.direct = True


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
    tensors = args[: known.tensors]
    addresses = [*map(_address, tensors)]
    key = (
        index,
        num_warps,
        *constants.values(),
        *map(_KINDS.__getitem__, known.settled(args)),
        *map(_dtype, tensors),
        max(known.varying(args), default=0) > _INT32,
        # One look at all addresses together nearly always says that each of them is aligned.
        reduce(operator.or_, addresses) & 15 and tuple(address & 15 == 0 for address in addresses),
    )
    found = known.compiled.get(key)
    if found is not None:
        run, function, metadata, stream_of = found
        try:
            # Without the metadata and hooks of Triton's profiler, which are made and called in Python.
            run(
                *grid, stream_of(index), function, metadata, None, None, None,
                *addresses, *args[known.tensors :], *constants.values(),
            )  # fmt: skip
        except TypeError:
            # This Triton takes other arguments here; nothing has been launched.
            known.direct = False
            known.compiled.clear()
        else:
            return found
    compiled = kernel[grid](*_bytes_of(args), **constants, num_warps=num_warps)
    if known.direct and compiled is not None:
        known.compiled[key] = Compiled(
            compiled.run, compiled.function, compiled.packed_metadata, driver.active.get_current_stream
        )
    return None


def _picker(where: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return what takes the arguments at some places out of all of them."""
    if len(where) > 1:
        return operator.itemgetter(*where)
    return lambda args: tuple(args[i] for i in where)


def _bytes_of(args: tuple[Any, ...]) -> list[Any]:
    return [arg.view(torch.int8) if isinstance(arg, Tensor) and arg.dtype == torch.bool else arg for arg in args]
