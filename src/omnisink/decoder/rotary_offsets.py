"""What multimodal models keep on themselves between passes: by how much positions run ahead of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Where the Qwen-VL families and those built like them write, in a prefill, what decode steps add to positions.
_NAME = "rope_deltas"

#: Modules and what each of them keeps.
Offsets = Sequence[tuple[nn.Module, Tensor | None]]


def read_offsets(model: nn.Module) -> Offsets:
    """Return what every module of `model` keeps; empty for families that keep nothing."""
    return [(module, getattr(module, _NAME)) for module in model.modules() if hasattr(module, _NAME)]


def offsets_in_one(each: Sequence[Offsets], batch: int) -> Offsets:
    """Return what modules keep for the sequences of several passes over `batch` each, whose offsets `each` has."""
    whole: list[tuple[nn.Module, Tensor | None]] = []
    for kept in zip(*each, strict=True):
        module, first = kept[0]
        values = [value for _, value in kept if value is not None]
        whole.append((module, torch.cat(values) if first is not None and len(first) == batch else first))
    return whole


def write_offsets(offsets: Offsets) -> None:
    """Put back what `read_offsets` returned."""
    for module, value in offsets:
        setattr(module, _NAME, value)
