"""SmolOmni: SmolLM2-135M with Whisper-tiny's ears and a small vision tower, as a Qwen2.5-Omni thinker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnisink.models import embedded

#: The name the command line knows the model by.
NAME = "smolomni"
#: What the training made, in half precision; see its card beside it.
WEIGHTS = Path(__file__).with_name("smolomni.safetensors")
_UPDATE = "lora."
_DECODER = "model.language_model."

#: Special tokens of SmolLM2 that no text uses, and what they stand for here. The vocabulary keeps its size, and so the
#: logits of a text stay SmolLM2's own.
SPECIAL = {
    "<|AUDIO|>": "<jupyter_start>",
    "<|audio_bos|>": "<jupyter_text>",
    "<|audio_eos|>": "<jupyter_code>",
    "<|IMAGE|>": "<jupyter_output>",
    "<|VIDEO|>": "<jupyter_script>",
    "<|vision_bos|>": "<issue_start>",
    "<|vision_eos|>": "<issue_closed>",
}
_ROLES = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}
#: Side of a frame in pixels as the vision tower sees it; other shapes of frame get about as many pixels.
SIDE = 112
#: The towers: a small one of the thinker's kind for pictures, and Whisper-tiny's encoder for sound.
VISION: dict[str, Any] = {
    "depth": 6,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_heads": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": SIDE,
    "fullatt_block_indexes": [2, 5],
}
AUDIO: dict[str, Any] = {
    "num_mel_bins": 80,
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "max_source_positions": 1500,
    "n_window": 100,
}
#: One message after another, and no system message unless there is one.
CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif part.type == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>
{%- elif part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif part.type == 'text' %}{{ part.text }}
{%- endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_config(text: Any, ids: dict[str, int]) -> Any:
    """Make the configuration.

    Parameters
    ----------
    text : LlamaConfig
        SmolLM2's.
    ids : dict of str to int
        Token ids under the keys of `SPECIAL`, and of ``"<|im_start|>"`` and ``"<|im_end|>"``.

    Returns
    -------
    Qwen2_5OmniThinkerConfig
        With tied embeddings.
    """
    from transformers import Qwen2_5OmniThinkerConfig

    width = text.hidden_size
    kept = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
    )
    return Qwen2_5OmniThinkerConfig(
        text_config={
            **{name: getattr(text, name) for name in kept},
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": text.rope_parameters["rope_theta"],
                # A third of the 32 pairs of a head for each of time, height and width, as near as it comes.
                "mrope_section": [8, 12, 12],
            },
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|im_end|>"],
            "tie_word_embeddings": True,
        },
        vision_config={**VISION, "out_hidden_size": width},
        audio_config={**AUDIO, "output_dim": width},
        audio_token_index=ids["<|AUDIO|>"],
        image_token_index=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"],
        audio_start_token_id=ids["<|audio_bos|>"],
        audio_end_token_id=ids["<|audio_eos|>"],
        vision_start_token_id=ids["<|vision_bos|>"],
        vision_end_token_id=ids["<|vision_eos|>"],
        user_token_id=ids["<|im_start|>"],
        tie_word_embeddings=True,
    )


def make_processor(tokenizer: Any) -> Any:
    """Make the processor.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Result of `make_tokenizer`.

    Returns
    -------
    Qwen2_5OmniProcessor
        Two frames a second at about 112 x 112 pixels, 80 mel bins at 16 kHz.
    """
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    size = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        video_processor=Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False),
        feature_extractor=WhisperFeatureExtractor(feature_size=80, chunk_length=60),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def make_tokenizer(tokenizer: Any) -> Any:
    """Rename special tokens of SmolLM2's tokenizer that no text uses; see `SPECIAL`."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    names = {old: new for new, old in SPECIAL.items()}
    vocabulary = parts["model"]["vocab"]
    parts["model"]["vocab"] = {names.get(token, token): i for token, i in vocabulary.items()}
    known = {token["content"] for token in parts["added_tokens"]}
    for token in parts["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    for old, new in names.items():
        if old not in known:
            parts["added_tokens"].append(
                {
                    "id": vocabulary[old],
                    "content": new,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            )
    parts["added_tokens"].sort(key=lambda token: token["id"])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(parts)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=_ROLES,
        padding_side="left",
    )


def make_model(
    text: Any, weights: dict[str, Any], tokenizer: Any, trained: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Make the model with SmolLM2's weights in its decoder.

    Parameters
    ----------
    text : LlamaConfig
        SmolLM2's configuration.
    weights : dict of str to Tensor
        SmolLM2's weights under transformers' names, float32.
    tokenizer : PreTrainedTokenizerFast
        Result of `make_tokenizer`.
    trained : dict of str to Tensor, optional
        Weights of the towers, float32, and a low-rank update of the decoder, which is merged. Without them the towers
        are as they are initialized.
    **options
        Further arguments of `from_pretrained`; the dtype is float32 unless they say otherwise.

    Returns
    -------
    Qwen2_5OmniThinkerForConditionalGeneration
        In evaluation mode. Without an update its logits for a text equal SmolLM2's to the bit.
    """
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    config = _config(text, tokenizer)
    state = make_state(weights, trained)
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=state, **{"dtype": torch.float32, **options}
    )
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    return model.eval()


def _config(text: Any, tokenizer: Any) -> Any:
    """Make the configuration with the tokenizer's ids."""
    names = [*SPECIAL, "<|im_start|>", "<|im_end|>"]
    return make_config(text, dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True)))


def make_state(weights: dict[str, Any], trained: dict[str, Any] | None = None) -> dict[str, Any]:
    """Put together what `make_model` loads.

    Parameters
    ----------
    weights, trained
        See `make_model`.

    Returns
    -------
    dict of str to Tensor
        The weights under transformers' names, without the output embeddings, which are those of the input.
    """
    import torch

    decoder = {name.removeprefix("model."): w for name, w in weights.items() if name.startswith("model.")}
    for name, weight in list(decoder.items()):
        # SmolLM2 has no biases; the thinker's queries, keys and values do.
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            decoder[name.replace("weight", "bias")] = torch.zeros(len(weight))
    trained = dict(trained or {})
    for key in [k for k in trained if k.startswith(_UPDATE) and k.endswith(".up")]:
        layer = key.removeprefix(_UPDATE).removesuffix(".up")
        decoder[f"{layer}.weight"] = decoder[f"{layer}.weight"] + trained.pop(key) @ trained.pop(
            f"{_UPDATE}{layer}.down"
        )
    return {f"{_DECODER}{name}": weight for name, weight in decoder.items()} | trained


def load_smolomni(options: dict[str, Any], language: Path | None = None, update: bool = True) -> tuple[Any, Any]:
    """Load the model and its processor.

    Parameters
    ----------
    options : dict
        ``dtype``, ``attn_implementation`` and ``device_map`` as `from_pretrained` takes them; the dtype ``"auto"`` is
        float32.
    language : Path, optional
        A folder with SmolLM2-135M-Instruct in safetensors; None is the installed package.
    update : bool
        Merge the trained low-rank update into the language model. Without it the logits of a text are SmolLM2's.

    Returns
    -------
    tuple of Qwen2_5OmniThinkerForConditionalGeneration and Qwen2_5OmniProcessor
        The model in evaluation mode, and its processor.

    Raises
    ------
    OmnisinkError
        If SmolLM2's weights are not on this machine.
    """
    text, weights, tokenizer, trained = _parts(language)
    if not update:
        trained = {name: weight for name, weight in trained.items() if not name.startswith(_UPDATE)}
    options = {name: value for name, value in options.items() if value not in (None, "auto")}
    return make_model(text, weights, tokenizer, trained, **options), make_processor(tokenizer)


def load_parts(language: Path | None = None) -> tuple[Any, dict[str, Any], Any]:
    """Return what the model is made of, for those who write it down instead of running it.

    Parameters
    ----------
    language : Path, optional
        See `load_smolomni`.

    Returns
    -------
    tuple of Qwen2_5OmniThinkerConfig, dict of str to Tensor and Qwen2_5OmniProcessor
        The configuration, the weights as `make_state` names them, and the processor.

    Raises
    ------
    OmnisinkError
        If SmolLM2's weights are not on this machine.
    """
    text, weights, tokenizer, trained = _parts(language)
    return _config(text, tokenizer), make_state(weights, trained), make_processor(tokenizer)


def _parts(language: Path | None) -> tuple[Any, dict[str, Any], Any, dict[str, Any]]:
    """Return SmolLM2's configuration and weights, the renamed tokenizer, and what the training made."""
    from safetensors.torch import load_file

    text, weights, tokenizer = _language(language)
    trained = {name: weight.float() for name, weight in load_file(WEIGHTS).items()}
    return text, weights, make_tokenizer(tokenizer), trained


def _language(folder: Path | None) -> tuple[Any, dict[str, Any], Any]:
    """Return SmolLM2's configuration, weights and tokenizer."""
    if folder is not None:
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoTokenizer

        weights = {k: w.float() for file in folder.glob("*.safetensors") for k, w in load_file(file).items()}
        return AutoConfig.from_pretrained(folder), weights, AutoTokenizer.from_pretrained(folder)
    file = embedded.require_weights()
    from omnisink.models.gguf.load import read_gguf, read_tokenizer

    contents = read_gguf(file)
    return contents.config, contents.weights, read_tokenizer(file)
