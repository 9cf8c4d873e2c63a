"""What is done to a cache that its states have to follow, and where each of its sequences was before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _by_index(batch: int, index: Any = None, **named: Any) -> Tensor:
    (chosen,) = (index, *named.values()) if index is not None else tuple(named.values())
    chosen = torch.as_tensor(chosen)
    return chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen


def _by_repeat(batch: int, repeats: Any) -> Tensor:
    return torch.arange(batch).repeat_interleave(repeats)


#: Cache methods that change what a cache holds, and the old index of every new sequence where those change.
FOLLOWED: dict[str, Callable[..., Tensor | None]] = {
    "reorder_cache": _by_index,
    "batch_select_indices": _by_index,
    "batch_repeat_interleave": _by_repeat,
    "reset": lambda batch: None,
    "crop": lambda batch, *_, **__: None,
}
