"""How a short answer is spelled in one token, so that its likelihood can be read off one row of logits."""

from __future__ import annotations

from typing import Any


def spellings(tokenizer: Any, answer: str) -> list[int]:
    """Return every token that is this answer, with or without a space before it.

    ``"yes"`` and ``"no"`` count with a capital letter too.

    Parameters
    ----------
    tokenizer : object
        Of the model.
    answer : str
        A letter, or a word.

    Returns
    -------
    list of int
        Sorted token ids; empty where no spelling is a single token.
    """
    words = {answer, answer.capitalize()} if answer in ("yes", "no") else {answer}
    spelled = [
        tokenizer.encode(space + word, add_special_tokens=False) for word in sorted(words) for space in ("", " ")
    ]
    return sorted({ids[0] for ids in spelled if len(ids) == 1})
