"""The likelihood of an answer, from the log-likelihoods of tokens: a short answer in all its spellings, or a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def spellings(tokenizer: Any, answer: str) -> list[int]:
    """Return every token that is this answer, with or without a space before it.

    ``"yes"`` and ``"no"`` count with a capital letter too.

    Parameters
    ----------
    tokenizer : object
        Tokenizer of the model.
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


def answer_tokens(tokenizer: Any, answers: Sequence[str]) -> dict[str, list[int]]:
    """Return the spellings in one token of every answer that has one.

    A token that two answers share stands for neither.

    Parameters
    ----------
    tokenizer : object
        Tokenizer of the model.
    answers : sequence of str
        The answers of one question.

    Returns
    -------
    dict of str to list of int
        Token ids of every answer; answers without a spelling of their own are not in it.
    """
    spelled = {name: spellings(tokenizer, name) for name in answers}
    counted = [token for ids in spelled.values() for token in ids]
    unshared = {name: [i for i in ids if counted.count(i) == 1] for name, ids in spelled.items()}
    return {name: ids for name, ids in unshared.items() if ids}


def answer_log_likelihoods(row: Tensor, tokens: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the log-likelihood of every answer as the next token, in nats, all its spellings together.

    Parameters
    ----------
    row : Tensor
        (V,) float, log-likelihoods of the next token.
    tokens : mapping of str to sequence of int
        The spellings of every answer; see `answer_tokens`.

    Returns
    -------
    dict of str to float
        One for each answer.
    """
    return {name: float(row[list(ids)].logsumexp(dim=0)) for name, ids in tokens.items()}


def token_log_likelihoods(rows: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-likelihood of every token of a text, in nats.

    Parameters
    ----------
    rows : Tensor
        (N, V) float, log-likelihoods of the token that follows each position.
    tokens : Tensor
        (N,) long, the tokens that do follow.

    Returns
    -------
    Tensor
        (N,) float.
    """
    return rows.gather(1, tokens.to(rows.device)[:, None])[:, 0]
