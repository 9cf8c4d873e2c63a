"""Models without a processor: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.prompt import Encoded, Facts, Media, Prompt
from omnisink.models.adapters.spans import Modality

if TYPE_CHECKING:
    from omnisink.models.loaded import Loaded


class TextAlone(Adapter):
    """Batches of questions without media, for any model with a tokenizer."""

    model_types: ClassVar[tuple[str, ...]] = ()
    modalities: ClassVar[frozenset[Modality]] = frozenset()

    def read(self, loaded: Loaded, prompts: Sequence[Prompt]) -> list[Media]:
        """Refuse media; there is nothing else to read."""
        self._check(loaded, prompts)
        return [Media() for _ in prompts]

    def _check(self, loaded: Loaded, prompts: Sequence[Prompt]) -> None:
        if any(p.video or p.image or p.sound for p in prompts):
            raise OmnisinkError(f"{loaded.name} takes text alone: no processor was saved with it")

    def encode(self, loaded: Loaded, prompts: Sequence[Prompt], media: Sequence[Media] | None = None) -> Encoded:
        """Turn prompts into tokens, padded on the left whatever the tokenizer's own habit is."""
        import torch

        self._check(loaded, prompts)
        tokenizer = loaded.tokenizer
        rows = []
        for prompt in prompts:
            system = prompt.system if prompt.system is not None else loaded.system
            asked: list[int] = loaded.chat(prompt.text, system or None)["input_ids"][0].tolist()
            rows.append(asked + tokenizer.encode(prompt.reply, add_special_tokens=False))
        longest = max(map(len, rows))
        # What stands at a masked place is never seen; some tokenizers have no padding token.
        filler = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids = torch.tensor([[filler or 0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        device = loaded.model.device
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        return Encoded(inputs, list(prompts), [Facts(prompt_tokens=len(row)) for row in rows])
