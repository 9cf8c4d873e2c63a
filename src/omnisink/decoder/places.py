"""Tensors that stay where they are from prompt to prompt, because a graph of the decode steps reads them there."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Places:
    """Where a method writes what later passes read, on one cache.

    Attributes
    ----------
    spare : dict
        Tensors of the prefill before, where the cache was emptied since.
    fixed : bool
        Whether the cache is static, so that graphs may be made of the steps on it.
    """

    spare: dict[Hashable, Tensor] = field(default_factory=dict)
    fixed: bool = False
    _free: dict[tuple[tuple[int, ...], torch.device], list[Tensor]] = field(default_factory=dict)

    def take(self, key: Hashable, shape: tuple[int, ...], device: torch.device, room: int) -> Tensor:
        """Return a float32 tensor to be written to and kept under `key`.

        It is the one that the prefill before had, if it fits: a CUDA graph that was captured then, on a static cache,
        reads from its address, and is right for the prompt that fills the cache now. `room` says how many of this
        shape are going to be asked for, so that all are made at once.
        """
        old = self.spare.pop(key, None)
        if old is not None and (old.shape, old.device) == (shape, device) and _can_be_written(old):
            return old
        if not self.fixed and room > 1:
            free = self._free.setdefault((shape, device), [])
            if not free:
                free.extend(torch.empty(room, *shape, dtype=torch.float32, device=device).unbind())
            return free.pop()
        made = torch.empty(shape, dtype=torch.float32, device=device)
        if self.fixed:
            # As transformers says of the keys and values: a graph reads it where it is, without a copy of its own.
            torch._dynamo.mark_static_address(made, guard=False)
        return made


def _can_be_written(tensor: Tensor) -> bool:
    return not tensor.requires_grad and (torch.is_inference_mode_enabled() or not tensor.is_inference())
