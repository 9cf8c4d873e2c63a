"""The parts of a loaded model that an adapter receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(repr=False)
class ModelParts:
    """A model with what turns questions into its inputs.

    Attributes
    ----------
    model : PreTrainedModel
        The model, in evaluation mode.
    tokenizer : object
        Its tokenizer.
    processor : object or None
        The processor of a multimodal model.
    name : str
        The name it was asked for by; messages use it.
    system : str or None
        System message of every question without one of its own; None is the family's, ``""`` is no message.
    allow_long_prompts : bool
        Run prompts that are longer than the model's context, with a warning, instead of refusing them.
    """

    model: Any
    tokenizer: Any
    processor: Any
    name: str
    system: str | None = None
    allow_long_prompts: bool = False

    def __repr__(self) -> str:
        """Name the model; its weights would fill pages."""
        return f"{type(self).__name__}({self.name})"
