"""Tiny checkpoints of the families that see and do not take turns with sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from tests.models.tiny_parts import MROPE, QWEN_EYES, TEXT, VL_ROLES, save, template, token_ids, tokenizer


def _vl_ids(made: Any) -> dict[str, int]:
    return token_ids(
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
        **token_ids(made, image_token_id="<image>", video_token_id="<video>"),
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
        **token_ids(made, image_token_id="<image>", video_token_id="<video>"),
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
