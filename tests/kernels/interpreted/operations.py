"""What PyTorch is asked to do by a pass, and what it writes to, without what Triton's interpreter asks of it."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes


class Operations(TorchDispatchMode):
    """Count PyTorch's operators, and the writes to tensors that were there before."""

    def __init__(self, allowed=()):
        self.count = 0
        self.made = set()
        self.allowed = {t.untyped_storage().data_ptr() for t in allowed}
        self.written = []
        self.kept = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        for place, given in zip(func._schema.arguments, args, strict=False):
            if place.alias_info is not None and place.alias_info.is_write and isinstance(given, torch.Tensor):
                address = given.untyped_storage().data_ptr()
                known = address in self.made or address in self.allowed
                if not known and func is not torch.ops.aten.detach_.default:  # Which writes no data.
                    self.written.append(str(func))
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.kept.append(tensor)  # Or its address would be given out again.
                if not any(
                    isinstance(a, torch.Tensor)
                    and a.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
                    for a in args
                ):
                    self.made.add(tensor.untyped_storage().data_ptr())
        return out


def hide_the_interpreter(monkeypatch):
    """Hide what the interpreter does to move tensors to NumPy and back, which no GPU does."""
    from omnisink.kernels import launch as launching
    from omnisink.kernels import rotation

    launch = launching.launch

    def hidden(*args, **kwargs):
        with _disable_current_modes():
            launch(*args, **kwargs)

    for module in (launching, rotation):
        monkeypatch.setattr(module, "launch", hidden)
