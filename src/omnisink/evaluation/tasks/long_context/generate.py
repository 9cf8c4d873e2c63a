"""The questions of a length: drawn from a seed, and made as long as a length in tokens allows."""

from __future__ import annotations

from collections.abc import Callable

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.long_context.common_words import common_words
from omnisink.evaluation.tasks.long_context.draws import Draws
from omnisink.evaluation.tasks.long_context.key_value import key_value
from omnisink.evaluation.tasks.long_context.made import Generator, Made, largest_size
from omnisink.evaluation.tasks.long_context.needle import needle, needle_multi
from omnisink.evaluation.tasks.long_context.variable_tracking import variable_tracking

#: All generators, by the name of their task.
GENERATORS: dict[str, Generator] = {
    "needle": needle,
    "needle-multi": needle_multi,
    "key-value": key_value,
    "variable-tracking": variable_tracking,
    "common-words": common_words,
}
#: Tasks in which what is asked about stands at one place.
PLACED = frozenset({"needle", "needle-multi", "key-value"})
#: The places, from 0 at the beginning to 1 at the end. The questions take them in turn.
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def generate(task: str, length: int, seed: int, index: int, tokens: Callable[[Made], int]) -> tuple[Made, float]:
    """Make a question whose prompt is as long as it can be within a length. It depends on the arguments alone.

    Parameters
    ----------
    task : str
        One of `GENERATORS`.
    length : int
        The most tokens that the prompt and the room for its answer may have together.
    seed : int
        Of a split.
    index : int
        Number of the question, from 0.
    tokens : callable
        Returns how many tokens the prompt of a question and the room for its answer take.

    Returns
    -------
    Made, float
        The question, and the depth of what it asks about.

    Raises
    ------
    OmnisinkError
        If the length is too short for any question.
    """
    make, depth = GENERATORS[task], DEPTHS[index % len(DEPTHS)]
    draws = Draws(f"{task}/{length}/{seed}/{index}")

    def made(size: int) -> Made:
        # Every attempt draws anew, so that the result does not depend on those before it.
        return make(draws.stream("question"), size, depth)

    size = largest_size(lambda parts: tokens(made(parts)), length)
    if size is None:
        raise OmnisinkError(
            f"a question of {task} with room for its answer has {tokens(made(0)):,} tokens at least, which is more "
            f"than a length of {length:,}: take a longer one"
        )
    return made(size), depth
