"""What the host may do: look at values without making an accelerator wait, and work in blocks to save memory."""

from __future__ import annotations

import torch
from torch import Tensor


def is_eager_cpu(tensor: Tensor) -> bool:
    """Tell whether branching on the values of `tensor` is free: true of an eager tensor on the CPU.

    Work that turns out unnecessary can be left out there. On an accelerator a look stalls the queue, and in a graph
    being compiled there is nothing to look at yet: the same result must come from operations of fixed shape.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


#: Elements worked on at a time: on the CPU temporaries stay within a core's cache, on an accelerator they stay a
#: fraction of a long prompt's head outputs while every kernel still fills the device.
_BLOCK = {"cpu": 1 << 17}
_BLOCK_ELSEWHERE = 1 << 22


def token_blocks(tensor: Tensor) -> list[slice]:
    """Cut the tokens of a tensor (B, S, ...) into blocks, so that temporaries stay small.

    It is one block in a graph being compiled, where the compiler fuses the temporaries away.
    """
    length = tensor.shape[1]
    if torch.compiler.is_compiling():
        return [slice(0, length)]
    size = _BLOCK.get(tensor.device.type, _BLOCK_ELSEWHERE)
    step = max(1, size * length // max(1, tensor.numel()))
    return [slice(start, start + step) for start in range(0, length, step)]
