"""One statement in a text about other things, alone or among others of its kind: the needle in the haystack.

RULER (arXiv 2404.06654) calls these the single and the multi-key needle. Here the statements are access codes.
"""

from __future__ import annotations

from omnisink.evaluation.tasks.long_context.draws import Draws
from omnisink.evaluation.tasks.long_context.filler import sentences, spread
from omnisink.evaluation.tasks.long_context.made import Made, with_options
from omnisink.evaluation.tasks.long_context.words import NAMES

#: Digits of a code.
DIGITS = 7


def needle(draws: Draws, size: int, depth: float) -> Made:
    """Hide one access code among the given number of sentences; there is no other."""
    return _hide(draws, size, depth, 0)


def needle_multi(draws: Draws, size: int, depth: float) -> Made:
    """Hide four access codes among the given number of sentences, and ask for one of them."""
    return _hide(draws, size, depth, 3)


def _hide(draws: Draws, size: int, depth: float, others: int) -> Made:
    own = draws.stream("codes")
    asked, *rest = own.sample(NAMES, 1 + others)
    code, *wrong = different_numbers(own, 4)
    placed = {_statement(asked, code): depth}
    for name, other in zip(rest, wrong, strict=False):
        placed[_statement(name, other)] = own.below(1000) / 1000
    context = spread(sentences(draws.stream("filler"), size), placed)
    question = f"What is the access code of the {asked}?"
    options, right = with_options(own, code, wrong)
    return Made(context, question, (code,), question, options, right)


def _statement(name: str, code: str) -> str:
    return f"The access code of the {name} is {code}."


def different_numbers(draws: Draws, count: int, digits: int = DIGITS) -> list[str]:
    """Return the given number of numbers, no two of them alike."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draws.digits(digits)] = None
    return list(found)
