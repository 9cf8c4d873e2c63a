"""How many questions at once: as many as make the work faster and fit in memory."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import torch

#: Where the search for a size begins: fewer questions leave any machine idle, and each size tried takes a batch.
SMALLEST = 4
#: Where it ends, and how many questions are then held ready for it.
LARGEST = 32
#: A larger batch has to be faster for each question by this factor, or it is not worth its memory.
_GAIN = 1.05
#: So many sizes in a row that are not worth it end the search.
_PATIENCE = 2


@dataclass
class BatchSize:
    """The size of the next batch, which grows while that pays and halves when memory runs out.

    Parameters
    ----------
    fixed : int or None
        A size to keep to; memory that runs out halves it all the same. None is to look for one.

    Attributes
    ----------
    size : int
        Size of the next batch.
    batches, asked, timed : int
        How many batches there have been, of how many questions, and how many of those were asked to be timed.
    """

    fixed: int | None = None
    size: int = field(init=False)
    batches: int = field(default=0, init=False)
    asked: int = field(default=0, init=False)
    timed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.size = self.fixed or SMALLEST
        self._largest = self.fixed or LARGEST
        self._settled = self.fixed is not None
        self._best: tuple[float, int] | None = None
        self._in_vain = 0

    def count(self, questions: int, *, timed: bool) -> None:
        """Count a batch that was asked."""
        self.batches += 1
        self.asked += questions
        self.timed += questions if timed else 0

    def worked(self, count: int, seconds: float) -> None:
        """Learn from a batch of `count` questions; one that was not full says nothing.

        Prompts differ in length and times in noise, so one size that is no better does not end the search; two do.
        """
        if self._settled or count < self.size:
            return
        each = seconds / count
        if self._best is None or self._best[0] >= each * _GAIN:
            self._best, self._in_vain = (each, self.size), 0
        else:
            self._in_vain += 1
        self._settled = self._in_vain == _PATIENCE or self.size * 2 > self._largest
        self.size = self._best[1] if self._settled else self.size * 2

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
