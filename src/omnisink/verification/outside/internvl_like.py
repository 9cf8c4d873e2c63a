"""A chat model built as InternVL is: `llm_config`, `language_model`, and a `generate` that hands on embeddings.

The file is copied into a checkpoint and is its remote code, so that it imports nothing of omnisink.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM


class InternVLLikeConfig(PreTrainedConfig):  # type: ignore[misc]
    """Calls the configuration of its language model `llm_config`."""

    model_type = "internvl_like"

    def __init__(self, llm_config: Any = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.llm_config = Qwen2Config(**(llm_config or {}))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the part's too."""
        return {**super().to_dict(), "llm_config": self.llm_config.to_dict()}


class InternVLLikeModel(PreTrainedModel):  # type: ignore[misc]
    """Puts what it sees in the place of token 3."""

    config_class = InternVLLikeConfig
    _supports_sdpa = True

    def __init__(self, config: InternVLLikeConfig) -> None:
        super().__init__(config)
        self.vision_model = nn.Linear(12, 16)
        self.mlp1 = nn.Linear(16, config.llm_config.hidden_size)
        self.language_model = Qwen2ForCausalLM(config.llm_config)
        self.post_init()

    def _embed(self, input_ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        embeds: Tensor = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is None:
            return embeds
        seen = self.mlp1(self.vision_model(pixel_values)).flatten(0, -2)
        return embeds.masked_scatter((input_ids == 3).unsqueeze(-1), seen.to(embeds))

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the language model on embeddings."""
        embeds = self._embed(input_ids, pixel_values)
        return self.language_model(inputs_embeds=embeds, attention_mask=attention_mask, **options)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Generate with embeddings; new tokens only are returned."""
        embeds = self._embed(input_ids, pixel_values)
        return self.language_model.generate(inputs_embeds=embeds, attention_mask=attention_mask, **options)
