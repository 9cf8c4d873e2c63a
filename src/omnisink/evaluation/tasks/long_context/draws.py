"""Random choices that are the same on every platform and under every version of Python."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """Random choices that depend on a text alone.

    Of `random.Random` only `random()` is used, and a text as its seed: Python promises that these stay as they are,
    and promises it of nothing else in the module.

    Parameters
    ----------
    key : str
        What the choices depend on.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._random = random.Random(key)

    def stream(self, name: str) -> Draws:
        """Return draws of their own for one purpose, so that more draws for one do not move those for another."""
        return Draws(f"{self.key}/{name}")

    def below(self, end: int) -> int:
        """Return a whole number from 0 to `end`, which is not among them."""
        return int(self._random.random() * end)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """Return the given number of different options, in an order drawn too."""
        left = list(options)
        for place in range(count):
            other = place + self.below(len(left) - place)
            left[place], left[other] = left[other], left[place]
        return left[:count]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return all options in an order drawn at random."""
        return self.sample(options, len(options))

    def digits(self, count: int) -> str:
        """Return a number of the given number of digits, the first of which is not zero."""
        return str(1 + self.below(9)) + "".join(str(self.below(10)) for _ in range(count - 1))
