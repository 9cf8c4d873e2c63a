"""video-SALMONN 2 and 2+: tiny checkpoints with the released names of weights and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnisink.verification.ports.checkpoints import TEXT, decoder_of, tokenizer
from omnisink.verification.ports.row import PortedModel

_ROLES = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|audio_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_MROPE: dict[str, Any] = {"rope_type": "default", "mrope_section": [1, 1, 2]}
_QWEN_EYES: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "window_size": 56,
    "fullatt_block_indexes": [1],
    "tokens_per_second": 2,
    "out_hidden_size": 32,
}
_SIGLIP: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 70,
    "patch_size": 14,
}

WHISPER: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "num_mel_bins": 16,
    "max_source_positions": 1500,
}
QFORMER: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "encoder_width": WHISPER["d_model"],
    "cross_attention_freq": 1,
    "query_length": 1,
}


def _qformer(width: int, inner: int) -> dict[str, Any]:
    """Return random weights of a Q-Former with the names of the releases, which are BERT's."""
    import torch

    seen = QFORMER["encoder_width"]
    made = {"embeddings.position_ids": torch.arange(512)[None]}
    shapes: dict[str, tuple[int, ...]] = {"embeddings.LayerNorm": (width,)}
    for layer in (f"encoder.layer.{i}" for i in range(QFORMER["num_hidden_layers"])):
        for part, enters in (("attention", width), ("crossattention", seen)):
            shapes[f"{layer}.{part}.self.query"] = (width, width)
            shapes[f"{layer}.{part}.self.key"] = shapes[f"{layer}.{part}.self.value"] = (width, enters)
            shapes[f"{layer}.{part}.output.dense"] = (width, width)
            shapes[f"{layer}.{part}.output.LayerNorm"] = (width,)
        shapes[f"{layer}.intermediate_query.dense"] = (inner, width)
        shapes[f"{layer}.output_query.dense"] = (width, inner)
        shapes[f"{layer}.output_query.LayerNorm"] = (width,)
    for name, shape in shapes.items():
        made[f"{name}.weight"] = 1 + torch.randn(shape) * 0.1 if len(shape) == 1 else torch.randn(shape) * 0.3
        made[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    return made


def _whisper() -> dict[str, Any]:
    """Return random weights of Whisper's encoder."""
    import torch
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    made = WhisperEncoder(transformers.WhisperConfig(**WHISPER)).state_dict()
    return {name: torch.randn_like(weight) * 0.15 + ("norm.weight" in name) for name, weight in made.items()}


def video_salmonn2_plus(folder: Path) -> Path:
    """Save video-SALMONN 2+: Qwen2.5-VL with the names of transformers 4.51, and its hearing."""
    import torch
    import transformers
    from safetensors.torch import save_file

    made = tokenizer(_ROLES)
    transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=made,
        video_processor=transformers.Qwen2VLVideoProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 56 * 56}),
    ).save_pretrained(folder)
    text = {**TEXT, "vocab_size": len(made), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
    named = {f"{role}_id": made.convert_tokens_to_ids(token) for role, token in _ROLES.items()}
    rope = {**_MROPE, "rope_theta": 10_000.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope}, vision_config=_QWEN_EYES, **named
    )
    weights = {}
    for name, weight in transformers.Qwen2_5_VLForConditionalGeneration(config).state_dict().items():
        old = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        weights[old] = torch.randn_like(weight) * 0.1 if weight.dim() > 1 else weight
    weights |= {f"audio.{name}": weight for name, weight in _whisper().items()}
    weights |= {
        f"audio.qformer.bert.{name}": weight
        for name, weight in _qformer(QFORMER["hidden_size"], QFORMER["intermediate_size"]).items()
    }
    weights["audio.q_tokens"] = torch.randn(1, 1, QFORMER["hidden_size"])
    weights["audio.audio_proj.weight"] = torch.randn(TEXT["hidden_size"], QFORMER["hidden_size"]) * 0.2
    weights["audio.audio_proj.bias"] = torch.randn(TEXT["hidden_size"]) * 0.1
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    windows = {"second_per_window": 0.5, "second_stride": 0.5}
    written = {
        **text,
        **named,
        "model_type": "qwen2_5_vl",
        "architectures": ["video_SALMONN2_plus"],
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "default", **_MROPE},
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vision_config": {**_QWEN_EYES, "model_type": "qwen2_5_vl"},
        "audio_config": {**WHISPER, **windows, "model_type": "whisper", "qformer_config": QFORMER},
    }
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def video_salmonn_2(folder: Path) -> Path:
    """Save video-SALMONN 2: Qwen2, SigLIP without its last layer, and hearing with a Q-Former of the released size."""
    import torch
    import transformers
    from safetensors.torch import save_file

    made = tokenizer({})
    made.save_pretrained(folder)
    width, seen = TEXT["hidden_size"], _SIGLIP["hidden_size"]
    config = transformers.Qwen2Config(**TEXT, vocab_size=len(made), pad_token_id=0, tie_word_embeddings=False)
    eyes = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_SIGLIP))
    weights = dict(transformers.Qwen2ForCausalLM(config).state_dict())
    for name, weight in eyes.state_dict().items():
        if ".layers.2." not in name and ".head." not in name and not name.startswith("head."):
            weights[f"model.vision_tower.vision_tower.vision_model.{name.removeprefix('vision_model.')}"] = weight
    weights = {name: torch.randn_like(w) * 0.1 if w.dim() > 1 else w for name, w in weights.items()}
    weights |= {f"speech_encoder.{name}": weight for name, weight in _whisper().items()}
    weights |= {f"speech_Qformer.bert.{name}": weight for name, weight in _qformer(768, 3072).items()}
    shapes = {
        "model.mm_projector.0": (width, seen),
        "model.mm_projector.2": (width, width),
        "ln_speech": (WHISPER["d_model"],),
        "speech_llama_proj": (width, 768),
        "final_linear.0": (width, width),
        "final_linear.2": (width, width),
    }
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = torch.randn(shape) * (0.05 if 768 in shape else 0.2)
        weights[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    weights["model.image_newline"] = torch.randn(width)
    weights["speech_query_tokens"] = torch.randn(1, 1, 768)
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    args = {"mm_spatial_pool_mode": "max", "mm_pooling_position": "after", "whisper_path": "whisper-tiny"}
    written = config.to_dict() | {
        "model_type": "video_salmonn_2",
        "architectures": ["VideoSALMONN2ForCausalLM"],
        "mm_vision_tower": "siglip-tiny",
        "mm_spatial_pool_mode": "bilinear",  # Of the model that it was made from.
        "rope_scaling": None,
        "eos_token_id": 2,
        "add_time_token": True,
        "model_args": args,
    }
    (folder / "config.json").write_text(json.dumps(written))
    eyes.config.save_pretrained(folder / "siglip-tiny")
    transformers.SiglipImageProcessor(size={"height": 70, "width": 70}).save_pretrained(folder / "siglip-tiny")
    transformers.WhisperConfig(**WHISPER).save_pretrained(folder / "whisper-tiny")
    return folder


def _qwen2_5_vl(folder: Path) -> Any:
    """Build transformers' Qwen2.5-VL from the weights of a checkpoint that are its own."""
    import transformers
    from safetensors.torch import load_file

    config = transformers.Qwen2_5_VLConfig.from_pretrained(folder)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).float()
    own = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.startswith("audio."):
            inner = name.replace("model.", "model.language_model.", 1).replace("visual.", "model.visual.", 1)
            own[inner] = weight
    model.load_state_dict(own)
    return model.eval()


ROWS = (
    PortedModel(
        "video_salmonn2_plus",
        "video-SALMONN 2+",
        "video_salmonn2_plus",
        ("text", "image", "video", "audio"),
        "tsinghua-ee/video-SALMONN2_plus_7B_full",
        video_salmonn2_plus,
        _qwen2_5_vl,
        lacks="a picture together with a sound; adapters that are not merged",
    ),
    PortedModel(
        "video_salmonn2",
        "video-SALMONN 2",
        "video_salmonn_2",
        ("text", "video", "audio"),
        "tsinghua-ee/video-SALMONN-2",
        video_salmonn_2,
        lambda folder: decoder_of(folder, "Qwen2ForCausalLM"),
        lacks="pictures, which the release does not take either; weights in `all_parameters.bin`",
    ),
)
