"""Recognise gradient checkpointing, whose second run of a layer comes when the pass that the method knew is over."""

from __future__ import annotations

import torch

from omnisink.errors import UnsupportedModelError

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
        """Raise where what runs now will run again in the backward pass, with nothing done to it.

        Raises
        ------
        UnsupportedModelError
            If a checkpoint was entered since.
        """
        if self._with_gradients and (not torch.is_grad_enabled() or _checkpoint_hook() is not self._hook):
            raise UnsupportedModelError(
                "gradient checkpointing runs the layers a second time in the backward pass, outside the pass of their "
                "prompt: the gradients would be those of the model without the method. Call "
                "model.gradient_checkpointing_disable(), or run without gradients (torch.no_grad())"
            )


def _checkpoint_hook() -> object:
    """Return what packs saved tensors here, if it belongs to a checkpoint; offloading them to the CPU is no harm."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    pack = hooks[0] if hooks else None
    return pack if getattr(pack, "__module__", None) == _CHECKPOINT_MODULE else None
