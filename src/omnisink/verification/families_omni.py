"""Families that see and hear at once."""

from __future__ import annotations

from typing import Any

from omnisink.verification.families_vision import MROPE, MROPE_INTERLEAVED
from omnisink.verification.family import Family, transformers_class
from omnisink.verification.multimodal import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    IMAGE,
    VIDEO,
    VISION_END,
    VISION_START,
    build_with,
    noise,
    patches,
    text_prompts,
    with_media,
)

#: transformers has no flex attention for these decoders.
_BACKENDS = ("sdpa", "eager")
_PATCH = 4 * 4 * 3 * 2
_EYES: dict[str, Any] = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
_EYES |= {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
_EARS: dict[str, Any] = {
    "num_mel_bins": 16,
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
}
_EARS |= {"max_source_positions": 64, "output_dim": 64}

_THINKER_EYES: dict[str, Any] = {**_EYES, "window_size": 16, "fullatt_block_indexes": [1]}
_THINKER_EARS: dict[str, Any] = {**_EARS, "n_window": 16}
_THINKER_IDS: dict[str, Any] = {
    "image_token_index": IMAGE,
    "video_token_index": VIDEO,
    "audio_token_index": AUDIO,
    "audio_start_token_id": AUDIO_START,
    "audio_end_token_id": AUDIO_END,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
    "user_token_id": 15,
}

#: Spectrogram frames of the tiny prompts, and the audio tokens the towers make of them.
_FRAMES, _TOKENS = 16, {"qwen2_5": 4, "qwen3": 2}


def seen_and_heard(tokens: int) -> Any:
    """Return a maker of prompts with an image, a video and a clip of `tokens` audio tokens."""

    def inputs(model: Any) -> dict[str, Any]:
        import torch

        image = [VISION_START, *[IMAGE] * 4, VISION_END]
        video = [VISION_START, *[VIDEO] * 8, VISION_END]
        clip = [AUDIO_START, *[AUDIO] * tokens, AUDIO_END]
        return {
            **with_media(model, image + video + clip),
            **patches("pixel_values", "image_grid_thw", (1, 4, 4), _PATCH),
            **patches("pixel_values_videos", "video_grid_thw", (2, 4, 4), _PATCH),
            "video_second_per_grid": torch.tensor([1.0]),
            "input_features": noise(1, 16, _FRAMES),
            "feature_attention_mask": torch.ones(1, _FRAMES, dtype=torch.long),
        }

    return inputs


def build_full(attn_implementation: str = "sdpa", plant: bool = True) -> Any:
    """Build the whole Qwen2.5-Omni, thinker, talker and vocoder, all tiny."""
    from omnisink.verification.tiny import TEXT_SETTINGS, make

    text = {**TEXT_SETTINGS, "rope_parameters": MROPE}
    talker: dict[str, Any] = {
        **TEXT_SETTINGS,
        "rope_parameters": MROPE,
        "head_dim": 16,
        "embedding_size": 64,
        **_THINKER_IDS,
    }
    talker |= {"tts_text_start_token_id": 3, "tts_text_end_token_id": 4, "tts_text_pad_token_id": 5}
    talker |= {"tts_codec_start_token_id": 20, "tts_codec_end_token_id": 21}
    talker |= {"tts_codec_pad_token_id": 22, "tts_codec_mask_token_id": 23}
    dit: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 16,
        "num_embeds": 129,
    }
    dit |= {
        "emb_dim": 16,
        "enc_emb_dim": 16,
        "enc_dim": 16,
        "enc_channels": [16, 16, 16, 16, 48],
        "enc_attention_channels": 8,
    }
    dit |= {"look_ahead_layers": [1], "look_backward_layers": [0]}
    config = transformers_class("Qwen2_5OmniConfig")(
        thinker_config={
            "text_config": text,
            "vision_config": _THINKER_EYES,
            "audio_config": _THINKER_EARS,
            "tie_word_embeddings": False,
            **_THINKER_IDS,
        },
        talker_config=talker,
        token2wav_config={"dit_config": dit, "bigvgan_config": {"upsample_initial_channel": 64}},
        enable_audio_output=True,
    )

    def assemble() -> Any:
        model = transformers_class("Qwen2_5OmniForConditionalGeneration")(config)
        model.speaker_map = {"Chelsie": {"bos_token": 3, "cond": noise(1, 16), "ref_mel": noise(1, 24, 80)}}
        if attn_implementation != "sdpa":
            model.thinker.set_attn_implementation({"text_config": attn_implementation})
        return model

    return make(assemble, plant=plant)


OMNI: list[Family] = [
    Family(
        "qwen2_5_omni_thinker",
        "Qwen2.5-Omni thinker",
        ("text", "image", "video", "audio"),
        "Qwen/Qwen2.5-Omni-7B",
        build_with(
            "Qwen2_5OmniThinkerConfig",
            "Qwen2_5OmniThinkerForConditionalGeneration",
            text={"rope_parameters": MROPE},
            vision=_THINKER_EYES,
            audio=_THINKER_EARS,
            **_THINKER_IDS,
        ),
        text_prompts,
        seen_and_heard(_TOKENS["qwen2_5"]),
        backends=_BACKENDS,
    ),
    Family(
        "qwen2_5_omni",
        "Qwen2.5-Omni with its talker",
        ("text", "image", "video", "audio"),
        "Qwen/Qwen2.5-Omni-7B",
        build_full,
        text_prompts,
        seen_and_heard(_TOKENS["qwen2_5"]),
        backends=_BACKENDS,
    ),
    Family(
        "qwen3_omni_moe_thinker",
        "Qwen3-Omni thinker",
        ("text", "image", "video", "audio"),
        "Qwen/Qwen3-Omni-30B-A3B-Instruct",
        build_with(
            "Qwen3OmniMoeThinkerConfig",
            "Qwen3OmniMoeThinkerForConditionalGeneration",
            text={
                "rope_parameters": MROPE_INTERLEAVED,
                "head_dim": 16,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 32,
            },
            vision={**_EYES, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
            audio={**_EARS, "n_window": 16, "n_window_infer": 32, "downsample_hidden_size": 128},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=AUDIO,
            audio_start_token_id=AUDIO_START,
            audio_end_token_id=AUDIO_END,
            vision_start_token_id=VISION_START,
            vision_end_token_id=VISION_END,
            user_token_id=15,
        ),
        text_prompts,
        seen_and_heard(_TOKENS["qwen3"]),
        backends=_BACKENDS,
    ),
]
