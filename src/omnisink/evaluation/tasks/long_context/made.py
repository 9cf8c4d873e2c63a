"""What a generator makes, and how the number of its parts is fitted to a length in tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omnisink.evaluation.tasks.long_context.draws import Draws

#: Guesses by interpolation before the search halves what is left.
_GUESSES = 8


@dataclass(frozen=True)
class Made:
    """A long text and what is asked about it, openly and with options.

    Attributes
    ----------
    context : str
        The text, with what is asked about somewhere in it.
    question : str
        The open question.
    answers : tuple of str
        All of its right answers. None is part of another, and each is in the context.
    choice : str
        A question about the same text that has four options.
    options : tuple of str
        The options, in an order drawn at random.
    right : int
        The place of the right one.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    choice: str
    options: tuple[str, ...]
    right: int


#: Makes a question of its random draws, the number of further parts of the text, and the place of what is asked about,
#: from 0 at the beginning to 1 at the end. It is a pure function.
Generator = Callable[[Draws, int, float], Made]


def with_options(draws: Draws, right: str, wrong: list[str]) -> tuple[tuple[str, ...], int]:
    """Return the options in an order drawn at random, and the place of the right one."""
    options = tuple(draws.shuffled([right, *wrong]))
    return options, options.index(right)


def largest_size(tokens: Callable[[int], int], limit: int) -> int | None:
    """Return the largest number of parts with which a prompt has no more tokens than a limit.

    Parameters
    ----------
    tokens : callable
        Returns the tokens of a prompt with a given number of parts; it grows with them.
    limit : int
        The most that there may be.

    Returns
    -------
    int or None
        The number of parts; None where the prompt without any is too long.
    """
    fits, least = 0, tokens(0)
    if least > limit:
        return None
    # A sentence has about fifteen tokens; what the first guess is wrong by, the second knows.
    size, too_large, guesses = max(1, (limit - least) // 15), None, 0
    most = known = least
    while too_large is None or too_large - fits > 1:
        found = tokens(size)
        if found <= limit:
            fits, most = size, found
        else:
            too_large, known = size, found
        guesses += 1
        if too_large is None:
            each = max(1.0, (most - least) / fits)
            size = fits + max(1, int((limit - most) / each * 1.02))
        elif guesses > _GUESSES:
            size = (fits + too_large) // 2
        else:
            guess = fits + round((limit - most) / max(1, known - most) * (too_large - fits))
            size = min(max(guess, fits + 1), too_large - 1)
    return fits
