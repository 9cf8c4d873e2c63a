"""Logits of the last tokens only: a vocabulary of 150,000 times a long prompt takes more memory than the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from omnisink.models.adapters.registry import adapter_of
from omnisink.models.finite import finite_logits
from omnisink.models.parts import ModelParts
from omnisink.models.writer import output_layer


@contextmanager
def last_rows(model: Any, count: int | None = 1) -> Iterator[None]:
    """Give the output layer only the last tokens, also in families without ``logits_to_keep``.

    Parameters
    ----------
    model : PreTrainedModel
        With an output layer; without one nothing is done.
    count : int or None
        Number of tokens; None is all.
    """
    head = output_layer(model)
    if count is None or head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][:, -count:], *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def last_log_likelihoods(parts: ModelParts, inputs: Mapping[str, Any], count: int | None = 1) -> Tensor:
    """Run a model once, without a cache, and return the log-likelihoods of what follows its last tokens.

    Parameters
    ----------
    parts : ModelParts
        With a model that has an output layer.
    inputs : mapping
        Inputs of the model; prompts of different lengths are padded on the left.
    count : int or None
        Number of last tokens; None is all.

    Returns
    -------
    Tensor
        (B, count, V) float32, in nats.

    Raises
    ------
    OmnisinkError
        If the logits of the last token are not finite.
    """
    adapter = adapter_of(parts.model.config.model_type, with_processor=parts.processor is not None)
    with last_rows(parts.model, count), finite_logits(parts.model):
        logits = adapter.forward(parts, inputs, use_cache=False).logits
    return (logits if count is None else logits[:, -count:]).float().log_softmax(dim=-1)
