"""Tiny checkpoints of every family, saved to disk with the family's real processor classes, without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

#: Width and shape that all text decoders share.
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
QWEN_EYES: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
}
EARS: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "output_dim": 32,
}
OMNI = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>")
OMNI_ROLES = dict(
    zip(
        (
            "audio_token",
            "audio_bos_token",
            "audio_eos_token",
            "image_token",
            "video_token",
            "vision_bos_token",
            "vision_eos_token",
        ),
        OMNI,
        strict=True,
    )
)
VL_ROLES = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}


def template(video: str, image: str, audio: str = "") -> str:
    """Write a chat template in the usual form, with a family's placeholders."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}"
        "{% if p.type == 'video' %}" + video + "{% elif p.type == 'image' %}" + image + "{% elif p.type == 'audio' %}"
        "" + audio + "{% else %}{{ p.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def tokenizer(roles: dict[str, str]) -> Any:
    """Make a tokenizer of single bytes with special tokens for the roles."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = ["<pad>", "<|im_start|>", "<|im_end|>", *roles.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(letters[: 3 + len(roles)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<|im_end|>", extra_special_tokens=roles
    )


def save(folder: Path, model: Any, processor: Any) -> Path:
    """Write model and processor side by side, as a checkpoint of the Hub."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.5 / max(float(parameter.std()), 1e-3) * 0.2)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _ids(made: Any, **names: str) -> dict[str, int]:
    return {name: made.convert_tokens_to_ids(token) for name, token in names.items()}


def _thinker_ids(made: Any) -> dict[str, int]:
    return _ids(
        made,
        audio_token_index="<|AUDIO|>",
        image_token_index="<|IMAGE|>",
        video_token_index="<|VIDEO|>",
        audio_start_token_id="<|audio_bos|>",
        audio_end_token_id="<|audio_eos|>",
        vision_start_token_id="<|vision_bos|>",
        vision_end_token_id="<|vision_eos|>",
        user_token_id="<|im_start|>",
    )


def qwen2_5_omni_parts(size: dict[str, int] | None = None) -> tuple[dict[str, Any], Any]:
    """Return the thinker's settings and the processor."""
    made = tokenizer(OMNI_ROLES)
    size = size or {"shortest_edge": 56 * 56, "longest_edge": 56 * 56}
    processor = transformers.Qwen2_5OmniProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=size),
        video_processor=transformers.Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False),
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=10),
        tokenizer=made,
        chat_template=template(
            "<|vision_bos|><|VIDEO|><|vision_eos|>",
            "<|vision_bos|><|IMAGE|><|vision_eos|>",
            "<|audio_bos|><|AUDIO|><|audio_eos|>",
        ),
    )
    settings = {
        "text_config": {**TEXT, "vocab_size": len(made), "rope_parameters": MROPE, "pad_token_id": 0},
        "vision_config": {**QWEN_EYES, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]},
        "audio_config": {**EARS, "num_mel_bins": 16, "max_source_positions": 600, "n_window": 100},
        "tie_word_embeddings": False,
        **_thinker_ids(made),
    }
    return settings, processor


def qwen2_5_omni(folder: Path) -> Path:
    """Save a thinker alone."""
    settings, processor = qwen2_5_omni_parts()
    config = transformers.Qwen2_5OmniThinkerConfig(**settings)
    return save(folder, transformers.Qwen2_5OmniThinkerForConditionalGeneration(config), processor)


def qwen3_omni(folder: Path) -> Path:
    """Save Qwen3-Omni's thinker."""
    made = tokenizer(OMNI_ROLES)
    size = {"shortest_edge": 64 * 64, "longest_edge": 64 * 64}
    shape = {"patch_size": 16, "size": size}
    processor = transformers.Qwen3OmniMoeProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**shape),
        video_processor=transformers.Qwen2VLVideoProcessor(**shape, cap_pixels_per_frame=False),
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=10),
        tokenizer=made,
        chat_template=template(
            "<|vision_bos|><|VIDEO|><|vision_eos|>",
            "<|vision_bos|><|IMAGE|><|vision_eos|>",
            "<|audio_bos|><|AUDIO|><|audio_eos|>",
        ),
    )
    ids = _thinker_ids(made)
    config = transformers.Qwen3OmniMoeThinkerConfig(
        text_config={
            **TEXT,
            "vocab_size": len(made),
            "pad_token_id": 0,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
        },
        vision_config={
            **QWEN_EYES,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        audio_config={
            **EARS,
            "num_mel_bins": 16,
            "max_source_positions": 600,
            "n_window": 50,
            "n_window_infer": 100,
            "downsample_hidden_size": 16,
        },
        image_token_id=ids["image_token_index"],
        video_token_id=ids["video_token_index"],
        audio_token_id=ids["audio_token_index"],
        **{name: ids[name] for name in ids if not name.endswith("index")},
    )
    return save(folder, transformers.Qwen3OmniMoeThinkerForConditionalGeneration(config), processor)


def _vl_ids(made: Any) -> dict[str, int]:
    return _ids(
        made,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )


_VL_TEMPLATE = template("<|vision_start|><|video_pad|><|vision_end|>", "<|vision_start|><|image_pad|><|vision_end|>")


def qwen2_5_vl(folder: Path) -> Path:
    """Save Qwen2.5-VL."""
    made = tokenizer(VL_ROLES)
    size = {"shortest_edge": 56 * 56, "longest_edge": 56 * 56}
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=size),
        tokenizer=made,
        video_processor=transformers.Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False),
        chat_template=_VL_TEMPLATE,
    )
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(made), "rope_parameters": MROPE, "pad_token_id": 0},
        vision_config={**QWEN_EYES, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]},
        **_vl_ids(made),
    )
    return save(folder, transformers.Qwen2_5_VLForConditionalGeneration(config), processor)


def qwen3_vl(folder: Path) -> Path:
    """Save Qwen3-VL."""
    made = tokenizer(VL_ROLES)
    size = {"shortest_edge": 64 * 64, "longest_edge": 64 * 64}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=size, patch_size=16),
        tokenizer=made,
        video_processor=transformers.Qwen3VLVideoProcessor(size=size),
        chat_template=_VL_TEMPLATE,
    )
    config = transformers.Qwen3VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(made),
            "head_dim": 8,
            "pad_token_id": 0,
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
        },
        vision_config={**QWEN_EYES, "patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        **_vl_ids(made),
    )
    return save(folder, transformers.Qwen3VLForConditionalGeneration(config), processor)


def videollama3(folder: Path) -> Path:
    """Save VideoLLaMA3."""
    made = tokenizer({"image_token": "<image>", "video_token": "<video>"})
    processor = transformers.VideoLlama3Processor(
        image_processor=transformers.VideoLlama3ImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56),
        tokenizer=made,
        video_processor=transformers.VideoLlama3VideoProcessor(min_pixels=28 * 28, max_pixels=56 * 56),
        chat_template=template("<video>", "<image>"),
    )
    config = transformers.VideoLlama3Config(
        text_config={**TEXT, "vocab_size": len(made), "pad_token_id": 0, "model_type": "qwen2"},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "patch_size": 14,
        },
        **_ids(made, image_token_id="<image>", video_token_id="<video>"),
    )
    return save(folder, transformers.VideoLlama3ForConditionalGeneration(config), processor)


def llava_onevision(folder: Path) -> Path:
    """Save LLaVA-OneVision."""
    made = tokenizer({"image_token": "<image>", "video_token": "<video>"})
    size = {"height": 28, "width": 28}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=[[28, 28], [56, 56]]
        ),
        tokenizer=made,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=template("<video>", "<image>"),
    )
    config = transformers.LlavaOnevisionConfig(
        text_config={**TEXT, "vocab_size": len(made), "pad_token_id": 0, "model_type": "qwen2"},
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        image_grid_pinpoints=[[28, 28], [56, 56]],
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        **_ids(made, image_token_id="<image>", video_token_id="<video>"),
    )
    return save(folder, transformers.LlavaOnevisionForConditionalGeneration(config), processor)


def phi4_multimodal(folder: Path) -> Path:
    """Save Phi-4-multimodal."""
    made = tokenizer({"image_token": "<image>", "audio_token": "<audio>"})
    processor = transformers.Phi4MultimodalProcessor(
        # The number of tokens of a picture of this size is fixed in the processor.
        transformers.Phi4MultimodalImageProcessor(dynamic_hd=1),
        transformers.Phi4MultimodalFeatureExtractor(),
        made,
        chat_template=template("", "<image>", "<audio>"),
    )
    config = transformers.Phi4MultimodalConfig(
        **{**TEXT, "vocab_size": len(made), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 448,
            "patch_size": 14,
            "crop_size": 448,
            "image_token_id": made.convert_tokens_to_ids("<image>"),
        },
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_blocks": 1,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "num_attention_heads": 2,
            "input_size": 80,
            "nemo_conv_channels": 16,
            "audio_token_id": made.convert_tokens_to_ids("<audio>"),
        },
    )
    return save(folder, transformers.Phi4MultimodalForCausalLM(config), processor)


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "qwen2_5_omni": qwen2_5_omni,
    "qwen3_omni": qwen3_omni,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "videollama3": videollama3,
    "llava_onevision": llava_onevision,
    "phi4_multimodal": phi4_multimodal,
}
HEARING = ("qwen2_5_omni", "qwen3_omni", "phi4_multimodal")
