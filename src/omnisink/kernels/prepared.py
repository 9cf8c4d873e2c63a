"""Launches of which nearly all is settled: the same kernel layer after layer of a prefill, and step after step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from omnisink.kernels import launch as launching


class PreparedLaunch:
    """A launch of which all is settled but the addresses of its first tensors and its last numbers.

    What `launch` looks up at every call, this looks up once: from layer to layer of a prefill, and from step to step
    of decoding, the same kernel is launched on tensors that are laid out alike.

    Parameters
    ----------
    kernel, grid, *args, num_warps, **constants
        As for `launch`.
    moving : int
        How many of the first arguments are tensors that may be others at every call. All other tensors stay where
        they are.
    numbers : int
        How many of the last arguments are integers that may be others at every call. The kernel takes them as they
        come (``do_not_specialize``).
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        *args: Any,
        moving: int = 1,
        numbers: int = 0,
        num_warps: int = 4,
        **constants: Any,
    ) -> None:
        end = len(args) - numbers
        self._kernel, self._grid, self._num_warps, self._constants = kernel, grid, num_warps, constants
        self._fixed = args[moving:end]
        self._layouts = [(arg.shape, arg.stride(), arg.dtype) for arg in args[:moving]]
        self._index = args[0].get_device()
        self._compiled: launching.Compiled | None = None
        #: Of the tensors behind the first, those that may be others, and those for whose alignment it is compiled.
        self._moving = moving - 1
        aligned = launching.alignments(kernel, moving)
        self._aligned = max((i for i in range(moving) if aligned[i]), default=0)
        self._rest = [arg.data_ptr() if isinstance(arg, Tensor) else arg for arg in self._fixed]
        self._last = tuple(constants.values())

    def fits(self, first: Tensor, *others: Tensor) -> bool:
        """Whether tensors are laid out, and on the device, as the first arguments were."""
        shape, strides, dtype = self._layouts[0]
        if (
            first.shape != shape
            or first.stride() != strides
            or first.dtype != dtype
            or first.get_device() != self._index
        ):
            return False
        if others:
            for tensor, layout in zip(others, self._layouts[1:], strict=False):
                if (tensor.shape, tensor.stride(), tensor.dtype) != layout or tensor.get_device() != self._index:
                    return False
        return True

    def __call__(self, first: Tensor, *more: Any) -> None:
        """Launch it on tensors that fit, and with the numbers."""
        bits = launching.address_of(first)
        addresses = [bits]
        for tensor in more[: self._aligned]:
            address = launching.address_of(tensor)
            addresses.append(address)
            bits |= address
        addresses.extend(map(launching.address_of, more[self._aligned : self._moving]))
        numbers = more[self._moving :]
        for number in numbers:
            bits |= number > launching.INT32
        compiled = self._compiled
        # Where sixteen does not divide an address, or 32 bits do not hold a number, it is another compiled kernel.
        other = bits & 15
        if (
            compiled is None
            or other
            or launching.COUNTING
            or launching.current_device() != self._index
            or launching.is_profiled()
        ):
            # The first times, `launch` finds out whether the direct call works.
            found = self._launch(first, *more)
            if not other:
                self._compiled = found
            return
        run, function, metadata, stream_of, _ = compiled
        try:
            run(
                *self._grid, stream_of(self._index), function, metadata, None, None, None,
                *addresses, *self._rest, *numbers, *self._last,
            )  # fmt: skip
        except Exception as error:
            self._compiled = None
            launching.leave_to_triton(self._kernel, error, lambda: self._launch(first, *more))

    def _launch(self, first: Tensor, *more: Any) -> launching.Compiled | None:
        return launching.launch(
            self._kernel, self._grid, first, *more[: self._moving], *self._fixed, *more[self._moving :],
            num_warps=self._num_warps, **self._constants,
        )  # fmt: skip


#: The kernel, its programs, the arguments that stay, and its constants and warps.
Arguments = tuple[Any, tuple[int, int, int], tuple[Any, ...], dict[str, Any]]


def launch_again(
    prepared: dict[Any, list[PreparedLaunch]],
    key: Any,
    arguments: Callable[[], Sequence[Arguments]],
    tensors: tuple[Tensor, ...],
    numbers: tuple[int, ...] = (),
    checked: int = 1,
) -> None:
    """Launch kernels on the same tensors as they were launched before, and prepare that where they were not.

    Parameters
    ----------
    prepared : dict
        Launches of which only `tensors` and `numbers` change.
    key : hashable
        Under which to find these there: what is done, and every number that `arguments` uses and that is not read from
        the first `checked` tensors.
    arguments : callable
        Returns for each kernel itself, its programs, the arguments between `tensors` and `numbers`, and the constants.
    tensors : tuple of Tensor
        The first arguments.
    numbers : tuple of int
        The last arguments before the constants.
    checked : int
        How many of the tensors could be laid out in another way than before. The others are contiguous, and of a
        shape and dtype that follow from `key`.
    """
    if torch.compiler.is_compiling():
        for kernel, grid, fixed, constants in arguments():
            launching.launch(kernel, grid, *tensors, *fixed, *numbers, **constants)
        return
    found = prepared.get(key)
    if found is None or not found[0].fits(*tensors[:checked]):
        found = prepared[key] = [
            PreparedLaunch(
                kernel, grid, *tensors, *fixed, *numbers, moving=len(tensors), numbers=len(numbers), **constants
            )
            for kernel, grid, fixed, constants in arguments()
        ]
    for one in found:
        one(*tensors, *numbers)
