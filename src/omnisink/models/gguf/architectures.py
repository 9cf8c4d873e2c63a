"""The architectures that are read from GGUF files: their settings and the names of their tensors in transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omnisink.errors import OmnisinkError, shown
from omnisink.models.gguf.header import Header, read_header
from omnisink.models.gguf.places import find_gguf
from omnisink.models.gguf.rope import rope_parameters

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")
#: GGUF's names of what lies outside the layers.
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER = {
    **_LAYER,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
#: Every which layer of Gemma 3 attends to the whole prompt, where the file does not say.
_GEMMA_PATTERN = 6
#: The layers of Gemma 3 27B, whose queries are scaled as if its heads were wider than they are.
_GEMMA_27B = 62


class Settings:
    """The settings of a file's architecture, each checked when it is asked for."""

    def __init__(self, header: Header, architecture: str) -> None:
        self.header, self._prefix = header, architecture

    def get(self, name: str) -> Any:
        """Return a setting as it is; None where the file does not have it."""
        return self.header.fields.get(f"{self._prefix}.{name}")

    def count(self, name: str, default: int | None = None) -> int:
        """Return a positive whole number."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or value <= 0:
            raise self.wrong(name, value, "a whole number above 0")
        return value

    def number(self, name: str) -> float:
        """Return a positive number."""
        value = self.get(name)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise self.wrong(name, value, "a number above 0")
        return float(value)

    def wrong(self, name: str, value: Any, expected: str) -> OmnisinkError:
        """Return the error for a setting that the model cannot be built with."""
        what = "has no" if value is None else f"has {shown(value)} as"
        return OmnisinkError(
            f"{self.header.path} cannot be loaded: it {what} {self._prefix}.{name}, expected {expected}"
        )


@dataclass(frozen=True)
class Architecture:
    """How one architecture becomes a model of transformers.

    Attributes
    ----------
    config, model : str
        Names of the classes.
    model_type : str
        The type by which transformers and the adapters know it.
    layer : dict of str to str
        The names of a layer's parts.
    own : callable
        Returns the settings that only this architecture has.
    turned : bool
        Whether the rows of queries and keys are stored in the other order of rotary embeddings.
    norm_shift : float
        What is added to the weights of norms.
    """

    config: str
    model: str
    model_type: str
    layer: dict[str, str]
    own: Callable[[Settings], dict[str, Any]]
    turned: bool = False
    norm_shift: float = 0.0


def _llama(settings: Settings) -> dict[str, Any]:
    if settings.get("expert_count"):
        raise settings.wrong("expert_count", settings.get("expert_count"), "a model without experts")
    return {"head_dim": _head_dim(settings), "attention_bias": "blk.0.attn_q.bias" in settings.header.tensors}


def _qwen2(settings: Settings) -> dict[str, Any]:
    width = _head_dim(settings)
    usual = settings.count("embedding_length") // settings.count("attention.head_count")
    return {} if width == usual else {"head_dim": width}


def _gemma3(settings: Settings) -> dict[str, Any]:
    width, layers = _head_dim(settings), settings.count("block_count")
    pattern = settings.count("attention.sliding_window_pattern", _GEMMA_PATTERN)
    scaled = settings.count("embedding_length") // settings.count("attention.head_count")
    return {
        "head_dim": width,
        "query_pre_attn_scalar": scaled if layers == _GEMMA_27B else width,
        "sliding_window": settings.count("attention.sliding_window"),
        "layer_types": ["sliding_attention" if (layer + 1) % pattern else "full_attention" for layer in range(layers)],
        "final_logit_softcapping": settings.get("final_logit_softcapping"),
    }


ARCHITECTURES = {
    "llama": Architecture("LlamaConfig", "LlamaForCausalLM", "llama", _LAYER, _llama, turned=True),
    "qwen2": Architecture("Qwen2Config", "Qwen2ForCausalLM", "qwen2", _LAYER, _qwen2),
    # GGUF stores the factor of a norm, transformers what it exceeds 1 by.
    "gemma3": Architecture(
        "Gemma3TextConfig", "Gemma3ForCausalLM", "gemma3_text", _GEMMA_LAYER, _gemma3, norm_shift=-1.0
    ),
}


def architecture_of(header: Header) -> Architecture:
    """Return how a file's architecture is read.

    Raises
    ------
    OmnisinkError
        If it is not read, or the file is one part of a model.
    """
    name = header.fields.get("general.architecture")
    parts = header.fields.get("split.count", 1)
    if parts not in (0, 1):
        raise OmnisinkError(
            f"{header.path} is one of the {shown(parts)} parts of a model. Join them with llama.cpp's "
            "llama-gguf-split --merge, and give the whole file"
        )
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise OmnisinkError(
            f"{header.path} cannot be loaded: it has the architecture {shown(name)}, and GGUF files are read of "
            f"{', '.join(ARCHITECTURES)}. Of other architectures, load the checkpoint in safetensors"
        )
    return ARCHITECTURES[name]


def peek(name: str) -> tuple[str, int] | None:
    """Return the type and the number of layers of a model in a GGUF file, without its weights being looked at.

    Parameters
    ----------
    name : str
        As for `omnisink.models.loading.load_model`.

    Returns
    -------
    tuple of str and int, or None
        None where the name is not of a GGUF file that can be read. Loading says why.
    """
    try:
        if (file := find_gguf(name)) is None:
            return None
        header = read_header(file)
        found = architecture_of(header)
        return found.model_type, Settings(header, header.fields["general.architecture"]).count("block_count")
    except OmnisinkError:
        return None


def config_of(header: Header) -> Any:
    """Return the configuration of transformers for a file.

    Raises
    ------
    OmnisinkError
        If the architecture or a setting is not read, or settings and tensors do not belong together.
    """
    import transformers

    found = architecture_of(header)
    settings = Settings(header, header.fields["general.architecture"])
    _check_layers(settings)
    heads, width = settings.count("attention.head_count"), _head_dim(settings)
    # Before anything is built: a model of the widths that a damaged file asks for may not fit in memory.
    _check_width(header, "token_embd.weight", 1, settings.count("embedding_length"))
    _check_width(header, "blk.0.attn_q.weight", 0, heads * width)
    rows = header.tensors["token_embd.weight"].shape[0]
    words = header.fields.get("tokenizer.ggml.tokens")
    if isinstance(words, list) and len(words) > rows:
        raise OmnisinkError(
            f"{header.path} cannot be loaded: its tokenizer has {len(words):,d} tokens, and token_embd.weight is of "
            f"{rows:,d}"
        )
    own = found.own(settings)
    common = {
        "vocab_size": rows,
        "hidden_size": settings.count("embedding_length"),
        "intermediate_size": settings.count("feed_forward_length"),
        "num_hidden_layers": settings.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.count("attention.head_count_kv", heads),
        "max_position_embeddings": settings.count("context_length"),
        "rms_norm_eps": settings.number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope_parameters(settings, width, local="sliding_window" in own),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "architectures": [found.model],
    }
    ids = {
        f"{short}_token_id": header.fields.get(f"tokenizer.ggml.{name}_token_id")
        for short, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return getattr(transformers, found.config)(**common, **own, **ids)


def rename(name: str, architecture: Architecture) -> str | None:
    """Turn ``blk.3.attn_q.weight`` into ``model.layers.3.self_attn.q_proj.weight``; None for an unknown part."""
    if (match := _BLOCK.fullmatch(name)) is None:
        return _OUTER.get(name)
    part = architecture.layer.get(match[2])
    return None if part is None else f"model.layers.{int(match[1])}.{part}.{match[3]}"


def _check_layers(settings: Settings) -> None:
    """Refuse a number of layers that the tensors do not have, before anything is built of it."""
    said = settings.count("block_count")
    there = {int(match[1]) for name in settings.header.tensors if (match := _BLOCK.fullmatch(name))}
    if len(there) != said or there != set(range(said)):
        raise OmnisinkError(
            f"{settings.header.path} cannot be loaded: it says that it has {said:,d} layers, and its tensors are of "
            f"{len(there):,d}"
        )


def _check_width(header: Header, name: str, dimension: int, width: int) -> None:
    """Refuse a tensor that has not the width that the settings ask for."""
    entry = header.tensors.get(name)
    if entry is None or len(entry.shape) <= dimension or entry.shape[dimension] != width:
        shape = "not there" if entry is None else "x".join(map(str, entry.shape))
        raise OmnisinkError(
            f"{header.path} cannot be loaded: its tensor {name} is {shape}, and its settings ask for {width:,d} "
            f"{('rows', 'columns')[dimension]}"
        )


def _head_dim(settings: Settings) -> int:
    """Return the width of a head, all of which is rotated."""
    whole, heads = settings.count("embedding_length"), settings.count("attention.head_count")
    width = settings.count("attention.key_length", settings.count("rope.dimension_count", max(1, whole // heads)))
    if (rotated := settings.count("rope.dimension_count", width)) != width:
        raise settings.wrong("rope.dimension_count", rotated, f"{width}, the width of a head")
    return width
