"""A long JSON object of keys and values, one of which is asked for: every other pair looks like it."""

from __future__ import annotations

from omnisink.evaluation.tasks.long_context.draws import Draws
from omnisink.evaluation.tasks.long_context.made import Made, with_options
from omnisink.evaluation.tasks.long_context.words import NAMES

#: Pairs that there are in any case, so that there are wrong answers.
LEAST = 4


def key_value(draws: Draws, size: int, depth: float) -> Made:
    """Make an object of `size` pairs more than the least, and ask for the value of the one at a depth."""
    own, drawn = draws.stream("asked"), draws.stream("pairs")
    pairs: dict[str, str] = {}
    values: set[str] = set()
    while len(pairs) < LEAST + size:
        key = f"{drawn.pick(NAMES).replace(' ', '-')}-{drawn.digits(3)}"
        value = drawn.digits(7)
        if key not in pairs and value not in values:
            pairs[key] = value
            values.add(value)
    keys = list(pairs)
    place = round(depth * (len(keys) - 1))
    asked = keys[place]
    lines = ",\n".join(f'"{key}": "{value}"' for key, value in pairs.items())
    question = f'What is the value of the key "{asked}"?'
    others = own.sample(range(len(keys) - 1), 3)
    wrong = [pairs[keys[other + (other >= place)]] for other in others]
    options, right = with_options(own, pairs[asked], wrong)
    return Made(f"{{\n{lines}\n}}", question, (pairs[asked],), question, options, right)
