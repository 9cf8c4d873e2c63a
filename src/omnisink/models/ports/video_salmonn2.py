"""video-SALMONN 2: transformers' Qwen2, SigLIP with an MLP and pooling, Whisper's encoder and a Q-Former.

The released class puts the tokens of frames and sound in the place of one id, and calls generate with embeddings. Here
a placeholder stands for each token, so that positions of ids are positions of tokens, and a batch is padded on the
left. No released weights were run with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, WhisperConfig

from omnisink.errors import OmnisinkError
from omnisink.models.ports.generating import CHATML, PenaltyOnNewTokens, extends
from omnisink.models.ports.hearing import QFORMER_NAMES, WHISPER_LARGE_V3, Hearing, check_windows, read_qformer
from omnisink.models.ports.placeholders import fill
from omnisink.models.ports.towers import build_tower, find_tower, read_tower, tower_prefix

#: What stands in a prompt for tokens of a video and of its sound, and what fills up a time of fewer digits.
WORDS = {"video_token_id": "<video>", "audio_token_id": "<audio>", "video_blank_token_id": "<blank>"}
#: The settings of the release's scripts, where ``model_args`` in ``config.json`` says nothing else. What stands beside
#: them there is LLaVA-OneVision's, from which the model was made.
_SETTINGS: dict[str, Any] = {
    "mm_spatial_pool_mode": "max",
    "mm_spatial_pool_stride": 2,
    "mm_pooling_position": "after",
    "mm_newline_position": "grid",
    "mm_projector_type": "mlp2x_gelu",
    "num_speech_query_token": 1,
    "second_per_window": 0.5,
    "second_stride": 0.5,
    "use_final_linear": True,
    "add_time_token": True,
    "whisper_path": "openai/whisper-large-v3",
}
#: Values of them that are ported.
_PORTED: dict[str, tuple[Any, ...]] = {
    "mm_spatial_pool_mode": ("max", "average"),
    "mm_pooling_position": ("before", "after", "no"),
    "mm_newline_position": ("grid",),
    "mm_projector_type": ("mlp2x_gelu",),
}
#: bert-base-uncased with two layers, as the release builds its Q-Former.
_QFORMER: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "cross_attention_freq": 1,
}
#: The released names of weights, as patterns, each with the name here; those of the decoder are the same.
_NAMES = {
    r"^model\.(?=mm_projector|image_newline)": "",
    r"^speech_encoder\.": "hearing.encoder.",
    r"^ln_speech\.": "hearing.norm.",
    r"^speech_query_tokens": "hearing.query",
    r"^speech_Qformer\.": "hearing.qformer.",
    r"^speech_llama_proj\.": "hearing.projection.",
    r"^final_linear\.": "hearing.final.",
    **QFORMER_NAMES,
}


class VideoSALMONN2Config(Qwen2Config):  # type: ignore[misc]
    """Qwen2's configuration under a name of its own, which a model that is saved keeps."""

    model_type = "video_salmonn_2"


class VideoSALMONN2(PenaltyOnNewTokens, Qwen2ForCausalLM):
    """Qwen2 that sees videos and hears."""

    # The norm after SigLIP, which is not used, and a buffer that the Q-Former once saved.
    _keys_to_ignore_on_load_unexpected = (r"post_layernorm", r"vision_tower\.head", r"position_ids")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.vision_tower = build_tower(config.vision_config)
        # The release takes what the last of its layers returns.
        getattr(self.vision_tower, "vision_model", self.vision_tower).post_layernorm = nn.Identity()
        self.mm_projector = nn.Sequential(
            nn.Linear(config.vision_config.hidden_size, width), nn.GELU(), nn.Linear(width, width)
        )
        self.image_newline = nn.Parameter(torch.zeros(width))
        self.hearing = Hearing(
            config.audio_config, config.qformer_config, width, normed=True, deep=config.use_final_linear
        )
        self.post_init()

    def frame_tokens(self) -> int:
        """Return how many tokens a frame becomes: rows, each with a line break."""
        eyes, config = self.vision_tower.config, self.config
        side = eyes.image_size // eyes.patch_size
        side = side if config.mm_pooling_position == "no" else side // config.mm_spatial_pool_stride
        return int(side * (side + 1))

    @extends(Qwen2ForCausalLM.forward)
    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_pieces: Tensor | None = None,
        audio_sources: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the decoder on text, video and sound.

        Parameters
        ----------
        input_ids : Tensor
            (B, S) int64 with placeholders.
        inputs_embeds : Tensor
            (B, S, W), in the place of ids and media.
        pixel_values_videos : Tensor
            (F, 3, H, W), the frames of all videos, in the order of their placeholders.
        input_features : Tensor
            (N, M, 3000), spectrograms of all pieces of sound.
        audio_pieces : Tensor
            (N,) int64, which piece of its sound each is, from 0.
        audio_sources : Tensor
            (A,) int64, which of the N * 60 tokens of sound stands at each placeholder.
        **options
            Of Qwen2's own forward pass.
        """
        if inputs_embeds is None and input_ids is not None:
            config: Any = self.config
            seen, heard = input_ids == config.video_token_id, input_ids == config.audio_token_id
            blank = input_ids == config.video_blank_token_id
            # The placeholders may lie beyond the embedding's last row.
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(seen | heard | blank, 0))
            inputs_embeds = inputs_embeds.masked_fill(blank.unsqueeze(-1), 0.0)
            if pixel_values_videos is not None and seen.any():
                inputs_embeds = fill(inputs_embeds, seen, self.see(pixel_values_videos).flatten(0, 1), "video")
            if input_features is not None and heard.any():
                tokens = self.hear(input_features, audio_pieces).flatten(0, 1)[audio_sources]
                inputs_embeds = fill(inputs_embeds, heard, tokens, "audio")
        return super().forward(inputs_embeds=inputs_embeds, **options)

    def see(self, frames: Tensor) -> Tensor:
        """Turn frames (F, 3, H, W) into tokens (F, N, W), row by row, a line break after each row."""
        config: Any = self.config
        tokens = self.vision_tower(frames).last_hidden_state
        tokens = self._pooled(tokens) if config.mm_pooling_position == "before" else tokens
        tokens = self.mm_projector(tokens)
        tokens = self._pooled(tokens) if config.mm_pooling_position == "after" else tokens
        side = round(tokens.shape[1] ** 0.5)
        breaks = self.image_newline.expand(len(tokens), side, 1, -1)
        return torch.cat([tokens.unflatten(1, (side, side)), breaks], dim=2).flatten(1, 2)

    def _pooled(self, tokens: Tensor) -> Tensor:
        pool: Any = {"max": F.max_pool2d, "average": F.avg_pool2d}[self.config.mm_spatial_pool_mode]
        side = round(tokens.shape[1] ** 0.5)
        grid: Tensor = pool(tokens.mT.unflatten(2, (side, side)), self.config.mm_spatial_pool_stride)
        return grid.flatten(2).mT

    def hear(self, spectrograms: Tensor, pieces: Any) -> Tensor:
        """Turn pieces of sound (N, M, 3000) into tokens (N, 60, W), to which the place of the piece is added."""
        tokens = self.hearing(spectrograms.to(self.dtype))
        return tokens + _places(pieces, tokens.shape[-1]).to(tokens).unsqueeze(1)


def _places(pieces: Tensor, width: int) -> Tensor:
    """Return sines and cosines of places, (N, W) float32: none for the first piece, those of 0 for the second."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * -(torch.log(torch.tensor(10000.0)) / width))
    angles = (pieces.cpu().float() - 1).unsqueeze(1) * rates
    waves = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    return waves.masked_fill((pieces.cpu() == 0).unsqueeze(1), 0.0)


def load_video_salmonn2(
    name: str, folder: Path, options: dict[str, Any], download: bool
) -> tuple[Any, dict[str, Any], Any, Any]:
    """Load a released checkpoint of video-SALMONN 2.

    Parameters
    ----------
    name : str
        The checkpoint, for messages.
    folder : Path
        With ``config.json``, safetensors and the tokenizer, as on the Hub.
    options : dict
        For `from_pretrained`.
    download : bool
        Whether the configuration of its vision tower may be fetched from the Hub.

    Returns
    -------
    tuple of PreTrainedModel, dict, tokenizer, ImageProcessor
        The model, transformers' loading report, and what turns questions into inputs.

    Raises
    ------
    OmnisinkError
        If its vision tower is not here, or a setting is not ported.
    """
    config, processor = _read_config(name, folder, download)
    tokenizer = AutoTokenizer.from_pretrained(folder, config=config, local_files_only=True)
    tokenizer.chat_template = CHATML
    tokenizer.add_tokens(list(WORDS.values()), special_tokens=True)
    for key, word in WORDS.items():
        setattr(config, key, tokenizer.convert_tokens_to_ids(word))
    eyes = "vision_tower." + tower_prefix(config.vision_config)
    model, report = VideoSALMONN2.from_pretrained(
        folder,
        config=config,
        key_mapping={r"^model\.vision_tower\.vision_tower\.vision_model\.": eyes, **_NAMES},
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
        **options,
    )
    return model, report, tokenizer, processor


def _read_config(name: str, folder: Path, download: bool) -> tuple[Any, Any]:
    """Return the decoder's configuration with those of the towers inside, and the vision tower's image processor."""
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written.pop("model_type")
    args = written.get("model_args") or {}
    written.pop("rope_scaling", None)  # The release sets it to None, whatever is there.
    settings = {key: args.get(key, value) for key, value in _SETTINGS.items()}
    settings["add_time_token"] = written.get("add_time_token", settings["add_time_token"])
    for key, known in _PORTED.items():
        if settings[key] not in known:
            raise OmnisinkError(
                f"{name} has {key} {settings[key]!r} in the model_args of its config.json; ported are "
                f"{', '.join(known)}"
            )
    tower = args.get("vision_tower") or written.get("mm_vision_tower")
    if not isinstance(tower, str):
        raise OmnisinkError(f"{name} names no vision tower: mm_vision_tower in its config.json")
    config = VideoSALMONN2Config.from_dict({**written, **settings})
    config.vision_config, processor = read_tower(tower, find_tower(tower, folder, download=download))
    config.vision_config.num_hidden_layers -= 1  # The release deletes the last.
    config.audio_config = _read_whisper(name, folder, settings["whisper_path"])
    config.qformer_config = read_qformer({**_QFORMER, "encoder_width": config.audio_config.d_model})
    windows = (settings[key] for key in ("second_per_window", "second_stride", "num_speech_query_token"))
    check_windows(name, config.audio_config, *windows)
    return config, processor


def _read_whisper(name: str, folder: Path, whisper: str) -> WhisperConfig:
    """Return the configuration of the encoder: that of a folder in the checkpoint, or Whisper large v3's."""
    if (folder / whisper / "config.json").is_file():
        return WhisperConfig.from_pretrained(folder / whisper)
    if Path(whisper).name != "whisper-large-v3":
        raise OmnisinkError(
            f"{name} hears with {whisper} (whisper_path in the model_args of its config.json); ported is Whisper "
            "large v3, or one whose config.json is in a folder of that name in the checkpoint"
        )
    return WhisperConfig(**WHISPER_LARGE_V3)
