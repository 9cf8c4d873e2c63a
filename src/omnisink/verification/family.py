"""The entry of a model family: what is built, and what is promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from omnisink.errors import UnsupportedModelError


class AbsentClassError(UnsupportedModelError):
    """The installed transformers has no class of that name: it is older, or newer, than the family."""


def transformers_class(name: str) -> Any:
    """Return a class of transformers by name.

    Parameters
    ----------
    name : str
        Such as ``"Qwen2ForCausalLM"``.

    Returns
    -------
    type
        The class.

    Raises
    ------
    AbsentClassError
        If the installed version does not have it.
    """
    import transformers

    try:
        return getattr(transformers, name)
    except AttributeError:
        raise AbsentClassError(f"transformers {transformers.__version__} has no {name}") from None


@dataclass(frozen=True)
class Family:
    """A family of models, and how to make a tiny one of it.

    Attributes
    ----------
    name : str
        Short name, also that of its tests.
    title : str
        Name for people.
    modalities : tuple of str
        Modalities it takes: ``"text"``, ``"image"``, ``"video"``, ``"audio"``.
    example : str
        A checkpoint on the Hub.
    build : callable
        ``build(attn_implementation="sdpa", plant=True)`` makes the tiny model: evaluation mode, float32, CPU, offline.
    inputs : callable
        ``inputs(model, lengths=(16, 11), padding_side="left")`` makes a padded batch of prompts with planted sinks.
    multimodal_inputs : callable or None
        ``multimodal_inputs(model)`` makes one prompt that passes through the towers.
    expectation : str
        ``"supported"``; ``"partial"`` where layers are left out and reported; ``"refused"``.
    note : str
        Why it is partial or refused.
    backends : tuple of str
        Attention implementations that run it.
    """

    name: str
    title: str
    modalities: tuple[str, ...]
    example: str
    build: Callable[..., Any]
    inputs: Callable[..., dict[str, Any]]
    multimodal_inputs: Callable[..., dict[str, Any]] | None = None
    expectation: Literal["supported", "partial", "refused"] = "supported"
    note: str = ""
    backends: tuple[str, ...] = ("sdpa", "eager", "flex_attention")
