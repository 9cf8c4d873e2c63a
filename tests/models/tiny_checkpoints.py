"""Tiny checkpoints of every family, saved to disk with the family's real processor classes, without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from omnisink.verification.ports import imagebind_llm, video_llama2, video_salmonn2
from tests.models import tiny_vision_checkpoints
from tests.models.tiny_parts import MROPE, QWEN_EYES, TEXT, save, template, token_ids, tokenizer

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


def _thinker_ids(made: Any) -> dict[str, int]:
    return token_ids(
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


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "qwen2_5_omni": qwen2_5_omni,
    "qwen3_omni": qwen3_omni,
    "qwen2_5_vl": tiny_vision_checkpoints.qwen2_5_vl,
    "qwen3_vl": tiny_vision_checkpoints.qwen3_vl,
    "videollama3": tiny_vision_checkpoints.videollama3,
    "llava_onevision": tiny_vision_checkpoints.llava_onevision,
    "phi4_multimodal": tiny_vision_checkpoints.phi4_multimodal,
    "videollama2_qwen2": video_llama2.videollama2_qwen2,
    "videollama2_av": video_llama2.videollama2_1_av,
    "video_salmonn2": video_salmonn2.video_salmonn_2,
    "video_salmonn2_plus": video_salmonn2.video_salmonn2_plus,
}
#: Models whose prompts have no tokens of media.
BESIDE: dict[str, Callable[[Path], Path]] = {"imagebind_llm": imagebind_llm.imagebind_llm}
HEARING = ("qwen2_5_omni", "qwen3_omni", "phi4_multimodal", "videollama2_av", "video_salmonn2", "video_salmonn2_plus")
#: Those that take pictures.
PICTURES = tuple(name for name in CHECKPOINTS if name != "video_salmonn2")
