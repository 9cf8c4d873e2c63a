"""The model families that the method is known to be right on, by the names vLLM gives their architectures."""

from __future__ import annotations

#: Architecture and the family it belongs to. Each has decoder layers that add the residual stream inside
#: `input_layernorm`, and full causal attention behind `self_attn.attn`.
FAMILIES: dict[str, str] = {
    "LlamaForCausalLM": "Llama",
    "MistralForCausalLM": "Mistral",
    "Qwen2ForCausalLM": "Qwen2",
    "Qwen3ForCausalLM": "Qwen3",
    "Qwen2VLForConditionalGeneration": "Qwen2-VL",
    "Qwen2_5_VLForConditionalGeneration": "Qwen2.5-VL",
    "Qwen3VLForConditionalGeneration": "Qwen3-VL",
    "Qwen2_5OmniModel": "Qwen2.5-Omni's thinker",
    "Qwen2_5OmniForConditionalGeneration": "Qwen2.5-Omni's thinker",
    "Qwen3OmniMoeForConditionalGeneration": "Qwen3-Omni's thinker",
}
#: The attention backends whose output can be changed after them, by the names vLLM gives them.
BACKENDS = ("CPU_ATTN", "FLASH_ATTN", "TRITON_ATTN", "FLEX_ATTENTION")
