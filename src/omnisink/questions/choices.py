"""The choices of a question: what counts as a list of choices, and how it is written in a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from omnisink.errors import OmnisinkError
from omnisink.questions.letters import LETTERS, split_letters

#: The last line of a question with choices.
BY_LETTER = "Answer with the letter."


def with_choices(question: str, choices: Sequence[str]) -> str:
    """Write the choices below a question, each with its letter, and ask for the letter.

    Choices that carry their letters already get them once.
    """
    return write_choices(question, split_letters(choices)[0])


def write_choices(question: str, choices: Sequence[str]) -> str:
    """Write choices that carry no letters below a question; without choices, return the question as it is."""
    if not choices:
        return question
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *lines, BY_LETTER])


def check_choices(choices: Sequence[str] | None) -> tuple[str, ...]:
    """Return the choices of a question, without letters where they carry them.

    Raises
    ------
    OmnisinkError
        If there is only one, there are more than the alphabet has letters, an empty one, or letters in another order.
    """
    if choices is None:
        return ()
    texts = not isinstance(choices, str) and all(isinstance(choice, str) for choice in choices)
    if not texts or not 2 <= len(choices) <= len(LETTERS):
        raise OmnisinkError(f"choices must be two texts or more, up to {len(LETTERS)}, got {choices!r}")
    if empty := [i for i, choice in enumerate(choices) if not choice.strip()]:
        raise OmnisinkError(f"one of the choices is empty: {LETTERS[empty[0]]}")
    return split_letters(choices)[0]
