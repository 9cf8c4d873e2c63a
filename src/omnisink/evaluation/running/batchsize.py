"""How many questions at once: as many as make the work faster and fit in memory."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import torch

#: Where the search for a size ends, and how many questions are then held ready for it.
LARGEST = 32
#: A larger batch has to be so much faster for each question, or it is not worth its memory.
_GAIN = 1.05


@dataclass
class BatchSize:
    """The size of the next batch, which grows while that pays and halves when memory runs out.

    Parameters
    ----------
    fixed : int or None
        A size to keep to; memory that runs out halves it all the same. None is to look for one.
    """

    fixed: int | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.fixed or 1
        self._largest = self.fixed or LARGEST
        self._settled = self.fixed is not None
        self._best: float | None = None

    def worked(self, count: int, seconds: float) -> None:
        """Learn from a batch of `count` questions; one that was not full says nothing."""
        if self._settled or count < self.size:
            return
        each = seconds / count
        if self._best is not None and self._best < each * _GAIN:
            self.size, self._settled = max(1, self.size // 2), True
            return
        self._best = each
        self._settled = self.size * 2 > self._largest
        self.size = min(self.size * 2, self._largest)

    def too_large(self, count: int) -> bool:
        """Learn that `count` did not fit; return whether there is a smaller size."""
        self._settled = True
        self.size = self._largest = max(1, count // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return count > 1


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on the CPU torch has no class for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "out of memory" in str(error))
