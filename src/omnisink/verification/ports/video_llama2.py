"""VideoLLaMA 2: tiny checkpoints with the released names of weights and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnisink.verification.ports.beats import ears
from omnisink.verification.ports.checkpoints import TEXT, decoder_of, tokenizer
from omnisink.verification.ports.row import PortedModel

_QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA = (
    "{% if messages[0].role == 'system' %}{% set said = messages[0].content + '\n\n' %}{% else %}{% set said = '' %}"
    "{% endif %}[INST] {{ said }}{{ messages[-1].content }} [/INST]"
)
_EYES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 42,
    "patch_size": 14,
}


def _connector(seen: int, width: int) -> dict[str, Any]:
    """Return random weights of the STC connector with the names and shapes of the release, which are timm's."""
    import torch

    made: dict[str, Any] = {}
    for stage, first in (("s1", seen), ("s2", width)):
        for block in range(1, 5):
            enters = first if block == 1 else width
            name, squeezed = f"{stage}.b{block}", round(enters * 0.25)
            shapes = {
                "conv1": (width, enters, 1, 1),
                "conv2": (width, 1, 3, 3),
                "conv3": (width, width, 1, 1),
                **({"downsample": (width, enters, 1, 1)} if enters != width else {}),
            }
            for part, shape in shapes.items():
                made[f"{name}.{part}.conv.weight"] = torch.randn(shape) * 0.3
                made[f"{name}.{part}.bn.weight"] = 1 + torch.randn(width) * 0.1
                made[f"{name}.{part}.bn.bias"] = torch.randn(width) * 0.1
            for part, out, into in (("fc1", squeezed, width), ("fc2", width, squeezed)):
                made[f"{name}.se.{part}.weight"] = torch.randn(out, into, 1, 1) * 0.3
                made[f"{name}.se.{part}.bias"] = torch.randn(out) * 0.3
    made["sampler.0.weight"] = torch.randn(width, width, 2, 2, 2) * 0.1
    made["sampler.0.bias"] = torch.randn(width) * 0.1
    for layer in (0, 2):
        made[f"readout.{layer}.weight"] = torch.randn(width, width) * 0.2
        made[f"readout.{layer}.bias"] = torch.randn(width) * 0.1
    return {f"model.mm_projector.{name}": weight for name, weight in made.items()}


def _save(
    folder: Path,
    decoder: Any,
    model_type: str,
    eyes: Any,
    processor: Any,
    tower: str,
    connector: str,
    chat: str,
    hears_with: dict[str, Any] | None = None,
) -> Path:
    from safetensors.torch import save_file

    made = tokenizer({})
    made.chat_template = chat
    made.save_pretrained(folder)
    weights = {**decoder.state_dict(), **_connector(_EYES["hidden_size"], TEXT["hidden_size"])}
    for name, weight in eyes.state_dict().items():
        bare = name.removeprefix("vision_model.")
        weights[f"model.vision_tower.vision_tower.vision_model.{bare}"] = weight
    weights = {
        name: (w * 0.1 / max(float(w.std()), 1e-3) if w.dim() > 1 and "mm_projector" not in name else w).contiguous()
        for name, w in weights.items()
    }
    weights |= hears_with or {}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = decoder.config.to_dict() | {
        "model_type": model_type,
        "architectures": [f"{model_type}ForCausalLM"],
        "mm_vision_tower": tower,
        "mm_projector_type": connector,
        "mm_hidden_size": _EYES["hidden_size"],
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "num_frames": 4,
        "eos_token_id": 2,
    }
    if hears_with is not None:
        config |= {"mm_audio_tower": "audio_tower.bin", "mm_projector_a_type": "mlp2x_gelu"}
    (folder / "config.json").write_text(json.dumps(config))
    eyes.config.save_pretrained(folder / tower)
    processor.save_pretrained(folder / tower)
    return folder


def videollama2_qwen2(folder: Path, hears_with: dict[str, Any] | None = None) -> Path:
    """Save VideoLLaMA 2.1: Qwen2, SigLIP, the connector without padding."""
    import transformers

    made = tokenizer({})
    config = transformers.Qwen2Config(**TEXT, vocab_size=len(made) + 8, pad_token_id=0, tie_word_embeddings=False)
    eyes = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_EYES))
    processor = transformers.SiglipImageProcessor(size={"height": 42, "width": 42})
    decoder = transformers.Qwen2ForCausalLM(config)
    return _save(
        folder, decoder, "videollama2_qwen2", eyes, processor, "siglip-tiny", "stc_connector_v35", _QWEN, hears_with
    )


def videollama2_1_av(folder: Path) -> Path:
    """Save VideoLLaMA 2.1-AV: as 2.1, with BEATs."""
    return videollama2_qwen2(folder, ears(TEXT["hidden_size"]))


def videollama2_mistral(folder: Path) -> Path:
    """Save VideoLLaMA 2: Mistral, CLIP, the connector with padding; its placeholders lie beyond the embedding."""
    import transformers

    made = tokenizer({})
    config = transformers.MistralConfig(**TEXT, vocab_size=len(made), pad_token_id=0, sliding_window=None)
    eyes = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**_EYES))
    size = {"size": {"shortest_edge": 42}, "crop_size": {"height": 42, "width": 42}}
    processor = transformers.CLIPImageProcessor(**size)
    decoder = transformers.MistralForCausalLM(config)
    return _save(folder, decoder, "videollama2_mistral", eyes, processor, "clip-tiny", "stc_connector", _LLAMA)


ROWS = (
    PortedModel(
        "videollama2_1",
        "VideoLLaMA 2.1",
        "videollama2_qwen2",
        ("text", "image", "video"),
        "DAMO-NLP-SG/VideoLLaMA2.1-7B-16F",
        videollama2_qwen2,
        lambda folder: decoder_of(folder, "Qwen2ForCausalLM"),
        lacks="connectors other than STC",
    ),
    PortedModel(
        "videollama2",
        "VideoLLaMA 2",
        "videollama2_mistral",
        ("text", "image", "video"),
        "DAMO-NLP-SG/VideoLLaMA2-7B-16F",
        videollama2_mistral,
        lambda folder: decoder_of(folder, "MistralForCausalLM"),
        lacks="the variants on Mixtral, Gemma 2 and Phi-3; connectors other than STC",
    ),
    PortedModel(
        "videollama2_1_av",
        "VideoLLaMA 2.1-AV",
        "videollama2_qwen2",
        ("text", "image", "video", "audio"),
        "DAMO-NLP-SG/VideoLLaMA2.1-7B-AV",
        videollama2_1_av,
        lambda folder: decoder_of(folder, "Qwen2ForCausalLM"),
        lacks="sound with a picture; sound where its weights are pickled and not converted",
    ),
)
