"""From a GGUF file to a model with its tokenizer."""

from __future__ import annotations

import hashlib
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.extras import install
from omnisink.models.gguf.architectures import Architecture, architecture_of, config_of, rename
from omnisink.models.gguf.header import Header, read_header
from omnisink.models.gguf.quantization import check_tensors, name_of, own_dtype, pieces, unpack
from omnisink.models.gguf.rope import DIVISORS

#: Bytes that are hashed at once.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Contents:
    """What a GGUF file holds.

    Attributes
    ----------
    config : PreTrainedConfig
        The configuration.
    weights : dict of str to Tensor
        The weights under transformers' names.
    kinds : tuple of str
        The types the weights are stored in, as ``("F32", "Q4_K")``.
    sha256 : str
        The hash of the file.
    """

    config: Any
    weights: dict[str, Tensor]
    kinds: tuple[str, ...]
    sha256: str


def load_gguf(file: Path, options: dict[str, Any]) -> tuple[Any, Any, Contents]:
    """Load a model and its tokenizer from a GGUF file.

    Parameters
    ----------
    file : Path
        The file.
    options : dict
        ``dtype``, ``attn_implementation`` and ``device_map`` as `from_pretrained` takes them. ``dtype="auto"`` is
        float32 where weights are quantized, and the type of the values where they are not.

    Returns
    -------
    tuple of PreTrainedModel, tokenizer and Contents
        The model, its tokenizer with the chat template of the file, and what the file holds.

    Raises
    ------
    OmnisinkError
        See `read_gguf`.
    """
    import transformers

    contents = read_gguf(file, options["dtype"])
    model_class = getattr(transformers, contents.config.architectures[0])
    dtype = next(iter(contents.weights.values())).dtype
    model = model_class.from_pretrained(
        None, config=contents.config, state_dict=contents.weights, **{**options, "dtype": dtype}
    )
    fields = read_header(file).fields
    ends = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    if (kept := [*dict.fromkeys(one for one in ends if one is not None)]) and len(kept) > 1:
        # Models that chat end their turn by a token of its own, and a text by another.
        model.generation_config.eos_token_id = kept
    return model, read_tokenizer(file), contents


def read_gguf(file: Path, dtype: str | torch.dtype = "auto") -> Contents:
    """Read a GGUF file of an architecture in `architectures.ARCHITECTURES`.

    Parameters
    ----------
    file : Path
        The file.
    dtype : str or torch.dtype
        Type of the weights; ``"auto"``: see `load_gguf`.

    Returns
    -------
    Contents
        Its configuration and weights.

    Raises
    ------
    OmnisinkError
        If the package gguf is not installed, the file is cut off, damaged, or of an architecture or a type of weights
        that is not read, or tensors are missing or not of the shape that its settings ask for.
    """
    if importlib.util.find_spec("gguf") is None:
        raise OmnisinkError(
            f"reading {file} needs the package gguf, which is not installed. Install with: {install('demo')}"
        )
    header = read_header(file)
    architecture = architecture_of(header)
    check_tensors(header)
    config = config_of(header)
    names = _names(header, architecture, config)
    kind = own_dtype(header) if dtype == "auto" else dtype
    assert isinstance(kind, torch.dtype)
    weights = {to: torch.empty(header.tensors[name].shape, dtype=kind) for name, to in names.items()}
    data = np.memmap(file, np.uint8, "r")
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        digest = pool.submit(file_sha256, file)
        work = [
            pool.submit(
                unpack,
                data,
                header,
                header.tensors[name],
                rows,
                weights[to],
                architecture.norm_shift if name.endswith("norm.weight") else 0.0,
            )
            for name, to in names.items()
            for rows in pieces(header.tensors[name])
        ]
        for one in work:
            one.result()
        sha256 = digest.result()
    if architecture.turned:
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for name, weight in weights.items():
            if (part := name.split(".")[-2]) in heads:
                weights[name] = _split_halves(weight, heads[part])
    kinds = sorted({name_of(entry.kind) for entry in header.tensors.values()})
    return Contents(config, weights, tuple(kinds), sha256)


def read_tokenizer(file: Path) -> Any:
    """Return the tokenizer of a GGUF file, with its chat template, and with nothing of other files in the folder."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(name_or_path=str(file.parent), gguf_file=file.name)


def _names(header: Header, architecture: Architecture, config: Any) -> dict[str, str]:
    """Return transformers' names of all tensors, which are compared with those of the model first."""
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, architecture.model)(config)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    names = {name: rename(name, architecture) for name in header.tensors if name != DIVISORS}
    for name, to in names.items():
        if to not in expected:
            raise OmnisinkError(
                f"{header.path} cannot be loaded: {architecture.model} has no place for its tensor {name}"
            )
        if expected[to] != header.tensors[name].shape:
            sizes = ["x".join(map(str, shape)) for shape in (header.tensors[name].shape, expected[to])]
            raise OmnisinkError(
                f"{header.path} cannot be loaded: its tensor {name} is {sizes[0]}, and its settings ask for {sizes[1]}"
            )
    if missing := sorted(expected.keys() - set(names.values())):
        raise OmnisinkError(
            f"{header.path} lacks {len(missing)} weights of {architecture.model}, the first being {missing[0]}"
        )
    return {name: to for name, to in names.items() if to is not None}


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


def _split_halves(weight: Tensor, heads: int) -> Tensor:
    """Put the rows of every head in transformers' order.

    Rotary embeddings turn pairs of rows. GGUF stores the two of a pair next to each other, transformers half a head
    apart.
    """
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)
