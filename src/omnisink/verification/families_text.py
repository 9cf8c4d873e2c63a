"""Text families: ordinary decoders, and those whose attention needs a stated behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omnisink.verification.family import Family, transformers_class

_NOT_REACHED = "its attention does not go through transformers' attention interface"


def text_prompts(model: Any, lengths: tuple[int, ...] = (16, 11), padding_side: str = "left") -> dict[str, Any]:
    """Make prompts for a text model; see `omnisink.verification.tiny.text_inputs`."""
    from omnisink.verification.tiny import text_inputs

    return text_inputs(model, lengths, padding_side)


def text_builder(config: str, model: str, *, scale: float = 1.0, **settings: Any) -> Callable[..., Any]:
    """Return a function that builds a tiny text decoder of transformers.

    Parameters
    ----------
    config, model : str
        Names of the classes in transformers, such as ``"LlamaConfig"`` and ``"LlamaForCausalLM"``.
    scale : float
        Factor by which the model multiplies its embeddings.
    **settings
        Settings of the configuration beside `omnisink.verification.tiny.TEXT_SETTINGS`, or instead of them.

    Returns
    -------
    callable
        The ``build`` of a `Family`.
    """

    def build(attn_implementation: str = "sdpa", plant: bool = True) -> Any:
        from omnisink.verification.tiny import TEXT_SETTINGS, make

        merged = {**TEXT_SETTINGS, **settings, "attn_implementation": attn_implementation}
        return make(lambda: transformers_class(model)(transformers_class(config)(**merged)), plant=plant, scale=scale)

    return build


def text_family(name: str, title: str, example: str, build: Callable[..., Any], **more: Any) -> Family:
    """Return the entry of a text family; `more` are further fields of `Family`, such as ``backends``."""
    return Family(name, title, ("text",), example, build, text_prompts, **more)


_GEMMA: dict[str, Any] = {"head_dim": 16, "query_pre_attn_scalar": 16}
_PATTERN = ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "full_attention"]
_HYBRID = ["linear_attention", "full_attention", "linear_attention", "full_attention", "full_attention"]
_LINEAR: dict[str, Any] = {
    "layer_types": _HYBRID,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_WINDOW_NOTE = "layers with a window or chunks are relaxed only where that covers the prompt; others are reported"
_HYBRID_NOTE = (
    "linear-attention layers have no attention over tokens and are left out; the gate comes after the rotation"
)
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 5,
    "moe_intermediate_size": 32,
}

TEXT: list[Family] = [
    text_family("llama", "Llama", "meta-llama/Llama-3.1-8B-Instruct", text_builder("LlamaConfig", "LlamaForCausalLM")),
    text_family("qwen2", "Qwen2", "Qwen/Qwen2.5-7B-Instruct", text_builder("Qwen2Config", "Qwen2ForCausalLM")),
    text_family("qwen3", "Qwen3", "Qwen/Qwen3-8B", text_builder("Qwen3Config", "Qwen3ForCausalLM", head_dim=16)),
    text_family(
        "mistral",
        "Mistral",
        "mistralai/Mistral-7B-Instruct-v0.1",
        text_builder("MistralConfig", "MistralForCausalLM", sliding_window=64),
    ),
    text_family(
        "mistral_window",
        "Mistral, prompt longer than its window",
        "mistralai/Mistral-7B-Instruct-v0.1",
        text_builder("MistralConfig", "MistralForCausalLM", sliding_window=8),
        expectation="partial",
        note="rotated as usual; not relaxed, because the window does not cover the prompt",
    ),
    text_family(
        "mixtral",
        "Mixtral",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        text_builder("MixtralConfig", "MixtralForCausalLM"),
    ),
    text_family("phi3", "Phi-3", "microsoft/Phi-3.5-mini-instruct", text_builder("Phi3Config", "Phi3ForCausalLM")),
    text_family("smollm3", "SmolLM3", "HuggingFaceTB/SmolLM3-3B", text_builder("SmolLM3Config", "SmolLM3ForCausalLM")),
    text_family("olmo2", "OLMo 2", "allenai/OLMo-2-1124-7B-Instruct", text_builder("Olmo2Config", "Olmo2ForCausalLM")),
    text_family("glm4", "GLM-4", "zai-org/GLM-4-9B-0414", text_builder("Glm4Config", "Glm4ForCausalLM", head_dim=16)),
    text_family(
        "granite",
        "Granite (its own attention scale)",
        "ibm-granite/granite-3.3-8b-instruct",
        text_builder(
            "GraniteConfig", "GraniteForCausalLM", attention_multiplier=0.1, embedding_multiplier=12.0, scale=12.0
        ),
    ),
    text_family(
        "gemma2",
        "Gemma 2 (soft-capped scores)",
        "google/gemma-2-9b-it",
        text_builder("Gemma2Config", "Gemma2ForCausalLM", **_GEMMA, scale=8.0, sliding_window=64),
        backends=("eager", "flex_attention"),
        note=_WINDOW_NOTE,
    ),
    text_family(
        "gemma3",
        "Gemma 3 text (sliding-window layers)",
        "google/gemma-3-1b-it",
        text_builder(
            "Gemma3TextConfig", "Gemma3ForCausalLM", **_GEMMA, scale=8.0, sliding_window=8, layer_types=_PATTERN
        ),
        expectation="partial",
        note="on sliding-window layers that do not cover the prompt: rotated, not relaxed",
    ),
    text_family(
        "gemma4",
        "Gemma 4 text (shared keys and values)",
        "google/gemma-4-E2B-it",
        text_builder(
            "Gemma4TextConfig",
            "Gemma4ForCausalLM",
            scale=8.0,
            head_dim=16,
            global_head_dim=16,
            sliding_window=64,
            layer_types=_PATTERN,
            num_kv_shared_layers=2,
            vocab_size_per_layer_input=128,
            hidden_size_per_layer_input=8,
        ),
        expectation="partial",
        note=f"{_WINDOW_NOTE}; layers that share keys and values are left out where the model runs them on the last "
        "token only, as generate() makes it do",
    ),
    text_family(
        "gpt_oss",
        "gpt-oss (learned sinks)",
        "openai/gpt-oss-20b",
        text_builder(
            "GptOssConfig",
            "GptOssForCausalLM",
            head_dim=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=64,
            layer_types=_PATTERN,
        ),
        backends=("eager",),
        note=_WINDOW_NOTE,
    ),
    text_family(
        "llama4",
        "Llama 4 text (chunked attention)",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        text_builder(
            "Llama4TextConfig",
            "Llama4ForCausalLM",
            head_dim=16,
            intermediate_size_mlp=96,
            num_local_experts=2,
            moe_layers=[],
            attention_chunk_size=64,
        ),
        note=_WINDOW_NOTE,
    ),
    text_family(
        "deepseek_v3",
        "DeepSeek-V3 (latent attention)",
        "deepseek-ai/DeepSeek-V3",
        text_builder("DeepseekV3Config", "DeepseekV3ForCausalLM", **_LATENT),
    ),
    text_family(
        "deepseek_v32",
        "DeepSeek-V3.2 (sparse attention)",
        "deepseek-ai/DeepSeek-V3.2",
        text_builder(
            "DeepseekV32Config", "DeepseekV32ForCausalLM", **_LATENT, index_n_heads=2, index_head_dim=16, index_topk=8
        ),
        expectation="refused",
        note="an indexer chooses each query's keys, so that head outputs share no dense prompt",
        backends=("eager",),
    ),
    text_family(
        "qwen3_next",
        "Qwen3-Next (gated and linear attention)",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        text_builder("Qwen3NextConfig", "Qwen3NextForCausalLM", **_LINEAR, **_EXPERTS),
        expectation="partial",
        note=_HYBRID_NOTE,
        backends=("sdpa", "eager"),
    ),
    text_family(
        "qwen3_5",
        "Qwen3.5 text (gated and linear attention)",
        "Qwen/Qwen3.5-4B",
        text_builder("Qwen3_5TextConfig", "Qwen3_5ForCausalLM", **_LINEAR),
        expectation="partial",
        note=_HYBRID_NOTE,
        backends=("sdpa", "eager"),
    ),
    text_family(
        "gemma3n",
        "Gemma 3n (stacked residual streams)",
        "google/gemma-3n-E2B-it",
        text_builder(
            "Gemma3nTextConfig",
            "Gemma3nForCausalLM",
            scale=8.0,
            head_dim=16,
            layer_types=_PATTERN,
            num_kv_shared_layers=2,
            vocab_size_per_layer_input=128,
            hidden_size_per_layer_input=8,
            laurel_rank=8,
            activation_sparsity_pattern=[0.0] * 5,
        ),
        expectation="refused",
        note="AltUp carries several residual streams through each layer; the method is defined on one",
        backends=("sdpa",),
    ),
    text_family(
        "codegen",
        "CodeGen",
        "Salesforce/codegen-350M-mono",
        text_builder("CodeGenConfig", "CodeGenForCausalLM", n_embd=64, n_layer=5, n_head=4, rotary_dim=8),
        expectation="refused",
        note=_NOT_REACHED,
        backends=("eager",),
    ),
    text_family(
        "mamba",
        "Mamba",
        "state-spaces/mamba-130m-hf",
        text_builder("MambaConfig", "MambaForCausalLM", state_size=8),
        expectation="refused",
        note="a state-space model has no attention",
        backends=("eager",),
    ),
]
