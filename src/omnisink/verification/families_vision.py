"""Families that see: images and videos beside text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omnisink.verification.family import Family
from omnisink.verification.multimodal import (
    IMAGE,
    TOWER,
    VIDEO,
    VISION_END,
    VISION_START,
    build_with,
    noise,
    patches,
    text_prompts,
    with_media,
    with_types,
)

#: Sections of a head's rotary channels for time, height and width: 8 pairs in a head of 16.
MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}
MROPE_INTERLEAVED: dict[str, Any] = {**MROPE, "mrope_interleaved": True}

_QWEN_TOWER: dict[str, Any] = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
_QWEN_IDS: dict[str, Any] = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
#: transformers has no flex attention for the Qwen-VL decoders.
_QWEN_BACKENDS = ("sdpa", "eager")
_DEEPSTACK = {**_QWEN_TOWER, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
_DEEPSTACK |= {"num_position_embeddings": 16}
#: Layers of hybrid decoders: most compress what went before into a state, some attend to it.
_HYBRID = ["linear_attention", "full_attention", "full_attention", "linear_attention", "full_attention"]


def qwen_media() -> dict[str, Any]:
    """Make one image and one video of two pairs of frames, as the Qwen-VL processors lay them out."""
    return {
        **patches("pixel_values", "image_grid_thw", (1, 4, 4), patch=4 * 4 * 3 * 2),
        **patches("pixel_values_videos", "video_grid_thw", (2, 4, 4), patch=4 * 4 * 3 * 2),
    }


def qwen_image_and_video(model: Any) -> dict[str, Any]:
    """Make a prompt with one image and one two-frame-pair video for the Qwen-VL processors' layout."""
    image = [VISION_START, *[IMAGE] * 4, VISION_END]
    video = [VISION_START, *[VIDEO] * 8, VISION_END]
    return {**with_types(with_media(model, image + video)), **qwen_media()}


def qwen3_image_and_video(model: Any) -> dict[str, Any]:
    """Make a prompt with an image and a video for Qwen3-VL, which puts a time stamp before each pair of frames."""
    image = [VISION_START, *[IMAGE] * 4, VISION_END]
    frames = [token for stamp in (20, 21) for token in (stamp, VISION_START, *[VIDEO] * 4, VISION_END)]
    return {**with_types(with_media(model, image + frames)), **qwen_media()}


def pixels(count: int, *shape: int) -> Callable[[Any], dict[str, Any]]:
    """Return a maker of prompts with `count` image tokens and pixels of the given shape.

    Models without a video token of their own are given every frame as an image.
    """

    def inputs(model: Any) -> dict[str, Any]:
        return {**with_media(model, [IMAGE] * count), "pixel_values": noise(*shape)}

    return inputs


def tiled_image(model: Any) -> dict[str, Any]:
    """Make a prompt with an image in two tiles, the whole and its one part, and a video, for LLaVA-OneVision."""
    import torch

    # Four patches of the whole, four of the part, and a token that ends each of its two rows. A frame's four patches
    # are pooled into one, and one token ends the video.
    return {
        **with_media(model, [IMAGE] * 10 + [VIDEO] * 3),
        "pixel_values": noise(1, 2, 3, 8, 8),
        "image_sizes": torch.tensor([[8, 8]]),
        "pixel_values_videos": noise(1, 2, 3, 8, 8),
    }


def merged_image(model: Any) -> dict[str, Any]:
    """Make a prompt with an image and a video whose patches are merged two by two, for VideoLLaMA3."""
    import torch

    return {
        **with_media(model, [IMAGE] * 4 + [VIDEO] * 8),
        **patches("pixel_values", "image_grid_thw", (1, 4, 4), patch=4 * 4 * 3),
        **patches("pixel_values_videos", "video_grid_thw", (2, 4, 4), patch=4 * 4 * 3),
        "image_merge_sizes": torch.tensor([2]),
        "video_merge_sizes": torch.tensor([2]),
        "video_compression_mask": torch.ones(8, dtype=torch.bool),
    }


def image_seen_both_ways(model: Any) -> dict[str, Any]:
    """Make a prompt with one image for Gemma 3, whose tokens attend to each other in both directions."""
    return with_types(pixels(4, 1, 3, 16, 16)(model), "token_type_ids")


def looked_up_image(model: Any) -> dict[str, Any]:
    """Make a prompt with one image for Llama 3.2 Vision, whose cross-attention layers read it."""
    import torch

    prompt = with_media(model, [IMAGE])
    length = prompt["input_ids"].shape[1]
    return {
        **prompt,
        "pixel_values": noise(1, 1, 1, 3, 16, 16),
        "aspect_ratio_ids": torch.tensor([[1]]),
        "aspect_ratio_mask": torch.tensor([[[1]]]),
        "cross_attention_mask": torch.ones(1, length, 1, 1, dtype=torch.long),
    }


def _siglip(size: int) -> dict[str, Any]:
    return {
        **TOWER,
        "model_type": "siglip_vision_model",
        "image_size": size,
        "patch_size": 4,
        "vision_use_head": False,
    }


def _seeing(name: str, title: str, example: str, build: Callable[..., Any], inputs: Any, **more: Any) -> Family:
    modalities = more.pop("modalities", ("text", "image", "video"))
    return Family(name, title, modalities, example, build, text_prompts, inputs, **more)


VISION: list[Family] = [
    _seeing(
        "qwen2_vl",
        "Qwen2-VL",
        "Qwen/Qwen2-VL-7B-Instruct",
        build_with(
            "Qwen2VLConfig",
            "Qwen2VLForConditionalGeneration",
            text={"rope_parameters": MROPE},
            vision={**_QWEN_TOWER, "embed_dim": 32, "hidden_size": 64},
            **_QWEN_IDS,
        ),
        qwen_image_and_video,
        backends=_QWEN_BACKENDS,
    ),
    _seeing(
        "qwen2_5_vl",
        "Qwen2.5-VL",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        build_with(
            "Qwen2_5_VLConfig",
            "Qwen2_5_VLForConditionalGeneration",
            text={"rope_parameters": MROPE},
            vision={
                **_QWEN_TOWER,
                "hidden_size": 32,
                "intermediate_size": 48,
                "out_hidden_size": 64,
                "window_size": 16,
                "fullatt_block_indexes": [1],
            },
            **_QWEN_IDS,
        ),
        qwen_image_and_video,
        backends=_QWEN_BACKENDS,
    ),
    _seeing(
        "qwen3_vl",
        "Qwen3-VL",
        "Qwen/Qwen3-VL-8B-Instruct",
        build_with(
            "Qwen3VLConfig",
            "Qwen3VLForConditionalGeneration",
            text={"rope_parameters": MROPE_INTERLEAVED, "head_dim": 16},
            vision={**_DEEPSTACK, "deepstack_visual_indexes": [0]},
            **_QWEN_IDS,
        ),
        qwen3_image_and_video,
        backends=_QWEN_BACKENDS,
    ),
    _seeing(
        "qwen3_5_vision",
        "Qwen3.5 (gated and linear attention)",
        "Qwen/Qwen3.5-4B",
        build_with(
            "Qwen3_5Config",
            "Qwen3_5ForConditionalGeneration",
            text={
                "rope_parameters": {**MROPE_INTERLEAVED, "partial_rotary_factor": 1.0},
                "layer_types": _HYBRID,
                "head_dim": 16,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_key_head_dim": 16,
                "linear_value_head_dim": 16,
            },
            vision=_DEEPSTACK,
            **_QWEN_IDS,
        ),
        qwen3_image_and_video,
        expectation="partial",
        note="linear-attention layers have no attention over tokens and are left out",
        backends=_QWEN_BACKENDS,
    ),
    _seeing(
        "llava",
        "LLaVA",
        "llava-hf/llava-1.5-7b-hf",
        build_with(
            "LlavaConfig",
            "LlavaForConditionalGeneration",
            text={"model_type": "llama"},
            vision={
                **TOWER,
                "model_type": "clip_vision_model",
                "image_size": 8,
                "patch_size": 4,
                "projection_dim": 16,
            },
            image_token_index=IMAGE,
        ),
        pixels(4, 1, 3, 8, 8),
        modalities=("text", "image"),
    ),
    _seeing(
        "llava_onevision",
        "LLaVA-OneVision",
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        build_with(
            "LlavaOnevisionConfig",
            "LlavaOnevisionForConditionalGeneration",
            text={"model_type": "qwen2"},
            vision=_siglip(8),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=[[8, 8]],
        ),
        tiled_image,
    ),
    _seeing(
        "video_llama_3",
        "VideoLLaMA3",
        "lkhl/VideoLLaMA3-7B-Image-HF",
        build_with(
            "VideoLlama3Config",
            "VideoLlama3ForConditionalGeneration",
            text={"model_type": "qwen2"},
            vision={**TOWER, "patch_size": 4},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        ),
        merged_image,
    ),
    _seeing(
        "internvl",
        "InternVL",
        "OpenGVLab/InternVL3-8B-hf",
        build_with(
            "InternVLConfig",
            "InternVLForConditionalGeneration",
            text={"model_type": "qwen2"},
            vision={**TOWER, "image_size": [16, 16], "patch_size": [4, 4]},
            image_token_id=IMAGE,
            image_seq_length=4,
        ),
        pixels(8, 2, 3, 16, 16),
    ),
    _seeing(
        "smolvlm",
        "SmolVLM",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        build_with(
            "SmolVLMConfig",
            "SmolVLMForConditionalGeneration",
            text={"model_type": "llama"},
            vision={**TOWER, "image_size": 16, "patch_size": 4},
            image_token_id=IMAGE,
            scale_factor=2,
        ),
        pixels(8, 1, 2, 3, 16, 16),
    ),
    _seeing(
        "gemma3_vision",
        "Gemma 3",
        "google/gemma-3-4b-it",
        build_with(
            "Gemma3Config",
            "Gemma3ForConditionalGeneration",
            scale=8.0,
            text={"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64, "sliding_window_pattern": 2},
            vision=_siglip(16),
            image_token_index=IMAGE,
            boi_token_index=VISION_START,
            eoi_token_index=VISION_END,
            mm_tokens_per_image=4,
        ),
        image_seen_both_ways,
        modalities=("text", "image"),
        note="layers with a window are relaxed only where that covers the prompt; others are reported",
    ),
    _seeing(
        "mllama",
        "Llama 3.2 Vision (cross-attention layers)",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        build_with(
            "MllamaConfig",
            "MllamaForConditionalGeneration",
            text={"cross_attention_layers": [1]},
            vision={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 2,
                "image_size": 16,
                "patch_size": 4,
                "max_num_tiles": 1,
                "vision_output_dim": 96,
                "intermediate_layers_indices": [0, 1],
                "supported_aspect_ratios": [[1, 1]],
            },
            image_token_index=IMAGE,
        ),
        looked_up_image,
        modalities=("text", "image"),
        expectation="partial",
        note="cross-attention layers read the image's keys, not the prompt's, and are left out",
    ),
]
