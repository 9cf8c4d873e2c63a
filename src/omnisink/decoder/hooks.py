"""Hooks on the decoder layers that can be put aside for a pass that has no use for them.

Calling a hook costs some microseconds at every layer, a twentieth of an eager decode step of a model on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.utils.hooks import RemovableHandle

_Entry = tuple[nn.Module, RemovableHandle, Callable[..., None]]


class LayerHooks:
    """Pre-hooks, each on its module; it gets the module, its positional and its keyword arguments before that runs."""

    def __init__(self, hooks: list[tuple[nn.Module, Callable[..., None]]]) -> None:
        self._hooks: list[_Entry] = [
            (module, module.register_forward_pre_hook(hook, with_kwargs=True), hook) for module, hook in hooks
        ]
        self._aside: list[_Entry] = []

    def put_aside(self) -> None:
        """Take the hooks off where they are the only ones; among others, their place in the order has to be kept."""
        self.put_back()
        for entry in self._hooks:
            module, handle, _ = entry
            if len(module._forward_pre_hooks) == 1 and handle.id in module._forward_pre_hooks:
                del module._forward_pre_hooks[handle.id], module._forward_pre_hooks_with_kwargs[handle.id]
                self._aside.append(entry)

    def put_back(self) -> None:
        """Put hooks that were taken off on again, before any that has been added since."""
        for module, handle, hook in self._aside:
            added = dict(module._forward_pre_hooks)
            module._forward_pre_hooks.clear()
            module._forward_pre_hooks.update({handle.id: hook, **added})
            module._forward_pre_hooks_with_kwargs[handle.id] = True
        self._aside = []

    def remove(self) -> None:
        """Take the hooks off for good."""
        self.put_back()
        for _, handle, _ in self._hooks:
            handle.remove()
        self._hooks = []
