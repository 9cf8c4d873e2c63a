"""Which ten words of a long list are there far more often than the others.

RULER (arXiv 2404.06654) calls this common words extraction.
"""

from __future__ import annotations

from omnisink.evaluation.tasks.long_context.draws import Draws
from omnisink.evaluation.tasks.long_context.made import Made, with_options
from omnisink.evaluation.tasks.long_context.words import WORDS

#: How many words are common, how often each is there at least, and how many other entries there are at least.
COMMON, TIMES, OTHERS = 10, 10, 30


def common_words(draws: Draws, size: int, depth: float) -> Made:
    """Make a list with `size` other entries more than the least; `depth` is not used, as they are all over the list.

    A longer list repeats the other words, and the common ones more often in proportion: a common word is there at
    least five times as often as any other.
    """
    own = draws.stream("words")
    words = own.shuffled(WORDS)
    common, rest = words[:COMMON], words[COMMON:]
    others = [rest[i % len(rest)] for i in range(OTHERS + size)]
    times = max(TIMES, -(-TIMES * len(others) // len(rest)))
    entries = draws.stream("order").shuffled([*common * times, *others])
    options, right = with_options(own, own.pick(common), own.sample(rest[:OTHERS], 3))
    return Made(
        " ".join(entries),
        f"Which {COMMON} words are in the list most often?",
        tuple(common),
        "Which of these words is in the list most often?",
        options,
        right,
    )
