"""How right an answer is, after it was read."""

from __future__ import annotations

from collections.abc import Callable

from omnisink.evaluation.tasks.instance import Instance

#: Between several right answers, of which each counts for itself.
BETWEEN = ", "


def score(parsed: str | None, instance: Instance) -> float:
    """Return how right an answer is, from 0 to 1: by the `SCORERS` of its parser, else whether it is the right one."""
    if parsed is None:
        return 0.0
    scorer = SCORERS.get(instance.parser)
    return float(parsed == instance.gold) if scorer is None else scorer(parsed, instance.gold)


def f1_of_letters(parsed: str, gold: str) -> float:
    """Return the F1 of two sets of letters, as IntentBench has it.

    They are split at commas and not stripped, so that "A, E" shares "A" alone with "A,E".
    """
    said, right = parsed.split(","), gold.split(",")
    return 2 * len(set(said) & set(right)) / (len(said) + len(right))


def share_found(parsed: str, gold: str) -> float:
    """Return which part of the right answers a text holds, as RULER's string match has it.

    The right answers are divided by `BETWEEN`. Case does not matter, and an answer may be inside a longer word.
    """
    right = gold.casefold().split(BETWEEN)
    return sum(answer in parsed for answer in right) / len(right)


#: How partly right answers are scored, by the parser that read them.
SCORERS: dict[str, Callable[[str, str], float]] = {
    "letters": f1_of_letters,
    "intent_several": f1_of_letters,
    "string_match": share_found,
}
