"""Recognise gradient checkpointing, whose second run of a layer comes when the pass that the method knew is over."""

from __future__ import annotations

import torch

from omnisink.decoder import refusals

#: Where torch keeps the hooks that a checkpoint without re-entry puts around what it runs.
_CHECKPOINT_MODULE = "torch.utils.checkpoint"


class CheckpointWatch:
    """Tells whether something runs inside a checkpoint that was entered after the pass began.

    A checkpoint around the whole text model is none of these: there the second run is a pass of its own.
    """

    def __init__(self) -> None:
        self._with_gradients = torch.is_grad_enabled()
        self._hook = _checkpoint_hook()

    def refuse_recomputation(self) -> None:
        """Refuse to run where what runs now will run again in the backward pass, with nothing done to it."""
        if self._with_gradients and (not torch.is_grad_enabled() or _checkpoint_hook() is not self._hook):
            raise refusals.recomputation()


def _checkpoint_hook() -> object:
    """Return what packs saved tensors here, if it belongs to a checkpoint; offloading them to the CPU is no harm."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    pack = hooks[0] if hooks else None
    return pack if getattr(pack, "__module__", None) == _CHECKPOINT_MODULE else None
