"""A model built as MiniCPM-o is: its configuration is that of `llm`, and `tts` is a talker of another size.

The file is copied into a checkpoint and is its remote code, so that it imports nothing of omnisink.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM


class MiniCPMLikeConfig(Qwen2Config):  # type: ignore[misc]
    """That of the language model, with what the talker needs beside it."""

    model_type = "minicpm_like"

    def __init__(self, tts_config: Any = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.tts_config = dict(tts_config or {})


class MiniCPMLikeModel(PreTrainedModel):  # type: ignore[misc]
    """Takes its inputs as one mapping, and its `generate` calls that of the language model."""

    config_class = MiniCPMLikeConfig
    _supports_sdpa = True

    def __init__(self, config: MiniCPMLikeConfig) -> None:
        super().__init__(config)
        self.llm = Qwen2ForCausalLM(config)
        self.tts = LlamaModel(LlamaConfig(**config.tts_config))
        self.projector = nn.Linear(config.hidden_size, self.tts.config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """Return those of the language model."""
        return self.llm.get_input_embeddings()

    def forward(self, data: Any = None, **options: Any) -> Any:
        """Run the language model on embeddings, as the released `forward(data)` does."""
        given = {**(data or {}), **options}
        embeds = self.llm.get_input_embeddings()(given.pop("input_ids"))
        return self.llm(inputs_embeds=embeds, **given)

    @torch.no_grad()
    def generate(self, input_ids: Any = None, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """Generate with embeddings; new tokens only are returned."""
        embeds = self.llm.get_input_embeddings()(input_ids)
        return self.llm.generate(inputs_embeds=embeds, attention_mask=attention_mask, **options)

    def speak(self, hidden: Tensor) -> Any:
        """Run the talker on hidden states of the language model."""
        return self.tts(inputs_embeds=self.projector(hidden))
