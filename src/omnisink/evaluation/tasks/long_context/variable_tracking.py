"""Which variables have a value in the end, where they are set to one another in a text about other things.

RULER (arXiv 2404.06654) calls this variable tracking: a chain of four steps, so that five variables have the value.
Here a second chain with another value runs beside it.
"""

from __future__ import annotations

from omnisink.evaluation.tasks.long_context.draws import Draws
from omnisink.evaluation.tasks.long_context.filler import sentences, spread
from omnisink.evaluation.tasks.long_context.made import Made, with_options
from omnisink.evaluation.tasks.long_context.needle import different_numbers

#: Steps of a chain, and chains.
STEPS, CHAINS = 4, 2
#: No word has four letters such as these after one another, so that a name is found where it is meant.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


def variable_tracking(draws: Draws, size: int, depth: float) -> Made:
    """Make two chains of assignments among `size` sentences; `depth` is not used, as they are all over the text."""
    own = draws.stream("variables")
    names = _names(own, CHAINS * (STEPS + 1))
    chains = [names[i::CHAINS] for i in range(CHAINS)]
    numbers = different_numbers(own, CHAINS, 5)
    placed: dict[str, float] = {}
    for chain, number in zip(chains, numbers, strict=True):
        # Places in order: a variable has its value before another is set to it.
        places = sorted(own.below(1000) / 1000 for _ in chain)
        values = [number, *chain[:-1]]
        for name, value, place in zip(chain, values, places, strict=True):
            placed[f"Let {name} be equal to {value}."] = place
    context = spread(sentences(draws.stream("filler"), size), placed)
    held, other = chains
    # The first of the chain is set to the value itself; any later one has to be followed.
    options, right = with_options(own, own.pick(held[1:]), own.sample(other[1:], 3))
    return Made(
        context,
        f"Which {len(held)} variables have the value {numbers[0]} in the end?",
        tuple(held),
        f"Which of these variables has the value {numbers[0]} in the end?",
        options,
        right,
    )


def _names(draws: Draws, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(draws.pick(_LETTERS) for _ in range(4))] = None
    return list(found)
