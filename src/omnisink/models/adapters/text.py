"""Text in, text out: models without a processor, and models of families without an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.spans import Modality
from omnisink.models.templates import Message, write_parts, write_text
from omnisink.questions.prompt import Media, Prompt

if TYPE_CHECKING:
    from omnisink.models.parts import ModelParts


class TextOnly(Adapter):
    """Batches of questions without media, for any model with a tokenizer.

    Parameters
    ----------
    unknown : str, optional
        The model type of a multimodal model that no adapter is for; None is a model without a processor.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    modalities: ClassVar[frozenset[Modality]] = frozenset()

    def __init__(self, unknown: str | None = None) -> None:
        self.unknown = unknown

    def read(self, parts: ModelParts, prompts: Sequence[Prompt]) -> list[Media]:
        """Refuse media; there is nothing else to read."""
        self._check(parts, prompts)
        return [Media() for _ in prompts]

    def lacks(self, name: str, modality: str) -> str:
        """Say why nothing but text can be asked about."""
        if self.unknown is None:
            return f"{name} takes text only: no processor was saved with it"
        return (
            f"{name} is of the type {self.unknown}, for which there is no adapter; docs/write-an-adapter.md says how "
            "to write one. Your own inputs work with `with OutRo()(model):` all the same"
        )

    def process(self, parts: ModelParts, texts: list[str], prompts: Sequence[Prompt], media: Sequence[Media]) -> Any:
        """Turn texts into tokens, padded on the left whatever the tokenizer's own habit is."""
        tokenizer = parts.tokenizer
        rows = []
        for text, prompt in zip(texts, prompts, strict=True):
            asked = text.removesuffix(prompt.reply) if prompt.reply else text
            # A chat template writes the special tokens itself.
            bare = not getattr(tokenizer, "chat_template", None) and not asked.startswith(tokenizer.bos_token or "\0")
            rows.append(
                tokenizer.encode(asked, add_special_tokens=bare)
                + tokenizer.encode(prompt.reply, add_special_tokens=False)
            )
        return pad_left(rows, tokenizer)

    def _text(self, parts: ModelParts, prompt: Prompt, media: Media) -> str:
        return self._written(parts, self._messages(parts, prompt, media)) + prompt.reply

    def _written(self, parts: ModelParts, messages: list[Message]) -> str:
        """Write with the tokenizer's template, or if it has none, with the processor's."""
        of_parts = getattr(parts.processor, "chat_template", None)
        if of_parts and not getattr(parts.tokenizer, "chat_template", None):
            return write_parts(parts, messages)
        try:
            return write_text(parts, messages)
        except OmnisinkError:
            if not of_parts:
                raise
            return write_parts(parts, messages)


def pad_left(rows: Sequence[Sequence[int]], tokenizer: Any) -> dict[str, Any]:
    """Return ``input_ids`` and ``attention_mask`` of sequences of ids, (B, S) int64, padded on the left."""
    import torch

    longest = max(map(len, rows))
    # What stands at a masked place is never seen; some tokenizers have no padding token.
    filler = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = torch.tensor([[filler or 0] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
