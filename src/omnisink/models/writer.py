"""The part of a model that writes: the model itself, or the language model that code from outside holds in it."""

from __future__ import annotations

from typing import Any

from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.twins import find_head
from omnisink.errors import UnsupportedModelError


def writer_of(model: Any) -> Any:
    """Return the outermost part that has an output layer; the model itself where none is found.

    Parameters
    ----------
    model : nn.Module
        A model that answers.

    Returns
    -------
    nn.Module
        The model, or a part of it around its decoder.
    """
    if _head(model) is not None:
        return model
    try:
        return find_head(read_anatomy(model))
    except UnsupportedModelError:
        return model


def output_layer(model: Any) -> Any:
    """Return the layer that makes logits, or None where the model has none."""
    return _head(writer_of(model))


def ends_of(model: Any) -> set[int]:
    """Return the tokens that end an answer, as the model's generation is set."""
    settings = [getattr(part, "generation_config", None) for part in (model, writer_of(model))]
    ends = next((one.eos_token_id for one in settings if one is not None), None)
    return set(ends) if isinstance(ends, list) else set() if ends is None else {ends}


def _head(model: Any) -> Any:
    embeddings = getattr(model, "get_output_embeddings", None)
    return embeddings() if callable(embeddings) else None
