"""Logits of the last tokens alone: a vocabulary of 150,000 times a long prompt is more than the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def last_rows(model: Any, count: int | None = 1) -> Iterator[None]:
    """Let the output layer see the last tokens alone, also in families that know no ``logits_to_keep``.

    Parameters
    ----------
    model : PreTrainedModel
        With an output layer; without one nothing is done.
    count : int or None
        How many tokens; None is all.
    """
    head = model.get_output_embeddings()
    if count is None or head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][:, -count:], *args[1:]))
    try:
        yield
    finally:
        hook.remove()
