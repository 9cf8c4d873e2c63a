"""Hooks on the decoder layers that can be put aside for a pass that has no use for them.

Calling a hook costs some microseconds at every layer, a twentieth of an eager decode step of a model on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.utils.hooks import RemovableHandle


class LayerHooks:
    """Pre-hooks, one on each module of several.

    Parameters
    ----------
    hooks : list of (nn.Module, callable)
        Each gets the module, its positional and its keyword arguments before the module runs.
    """

    def __init__(self, hooks: list[tuple[nn.Module, Callable[..., None]]]) -> None:
        self._hooks: list[tuple[nn.Module, RemovableHandle, Callable[..., None]]] = [
            (module, module.register_forward_pre_hook(hook, with_kwargs=True), hook) for module, hook in hooks
        ]
        self._aside: list[tuple[nn.Module, RemovableHandle, Callable[..., None]]] = []

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
