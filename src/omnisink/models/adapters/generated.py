"""The generated tokens, separated from the prompt."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from omnisink.errors import OmnisinkError


def new_tokens(returned: Any, prompt: Tensor, most: int) -> Tensor:
    """Return the generated tokens of every sequence.

    Most models return the prompt and what follows it. Some with code of their own return only what follows, because
    they give embeddings to `generate`. Only what begins with the prompt's ids is cut.

    Parameters
    ----------
    returned : Tensor or ModelOutput
        Result of `generate`.
    prompt : Tensor
        (B, S) int64, the ids that it was given.
    most : int
        Longest answer that was asked for, in tokens.

    Returns
    -------
    Tensor
        (B, N) int64 with N of at least 1: an answer that ends at once is the token that ends it.

    Raises
    ------
    OmnisinkError
        If there are no token ids, not one sequence for each prompt, no token, or more than an answer may have.
    """
    made = getattr(returned, "sequences", returned)
    if not isinstance(made, Tensor) or made.dim() != 2:
        raise OmnisinkError(
            f"generate() returned {type(returned).__name__}, not token ids: the model needs an adapter of its own"
        )
    if len(made) != len(prompt):
        raise OmnisinkError(
            f"one answer is given to a question, and generate() returned {len(made)} for {len(prompt)}: leave "
            "num_return_sequences out, or call model.generate(**inputs) yourself"
        )
    length = prompt.shape[1]
    if made.shape[1] >= length and bool((made[:, :length] == prompt.to(made.device)).all()):
        made = made[:, length:]
    if made.shape[1] == 0:
        raise OmnisinkError("generate() made no token at all, not even one that ends an answer: that is not an answer")
    if made.shape[1] > most:
        raise OmnisinkError(
            f"generate() returned {made.shape[1]} tokens where {most} were asked for, and they do not begin with the "
            "prompt: which of them are the answer is unknown"
        )
    return made
