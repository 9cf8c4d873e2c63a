"""Tiny random models with a planted sink, so that a family can be verified offline in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

#: The token whose embedding is given one massive activation.
SINK_TOKEN = 7
#: Size of that activation as it enters the first decoder layer, whatever the model multiplies its embeddings by.
PEAK = 3000.0
#: The channel that carries it.
CHANNEL = 5
#: Ids below are special tokens and placeholders of the tiny configurations; prompts are made of larger ones.
FIRST_WORD = 16

#: Settings that every tiny text decoder shares, under transformers' usual names.
TEXT_SETTINGS: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Tied, the planted activation would also be in the output layer and drown every logit.
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make(build: Callable[[], nn.Module], *, plant: bool, scale: float = 1.0) -> Any:
    """Build a model with reproducible small weights and, if asked, plant a sink.

    Parameters
    ----------
    build : callable
        Makes the model from its configuration.
    plant : bool
        Whether `SINK_TOKEN` gets its massive activation.
    scale : float
        Factor by which the model multiplies its embeddings; the planted activation allows for it.

    Returns
    -------
    PreTrainedModel
        The model in evaluation mode, float32, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().eval().float()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.05)
                elif "norm" not in name.lower() and parameter.dim() == 1:
                    parameter.normal_(std=0.01)
            if plant:
                plant_sink(model, scale)
    return model


def plant_sink(model: PreTrainedModel, scale: float = 1.0) -> None:
    """Give the embedding of `SINK_TOKEN` one massive activation.

    Parameters
    ----------
    model : PreTrainedModel
        The model; changed in place. Of a thinker with a talker, the thinker is.
    scale : float
        Factor by which the model multiplies its embeddings.
    """
    embedding = getattr(model, "thinker", model).get_input_embeddings().weight
    with torch.no_grad():
        # Of ordinary size, so that layer norms leave something of the other tokens' channels as well.
        embedding.mul_(1.0 / scale)
        embedding[SINK_TOKEN, CHANNEL] = PEAK / scale


def words(length: int, seed: int, vocabulary: int = 128, forbidden: Iterable[int] = ()) -> list[int]:
    """Make `length` ordinary token ids, the same for the same seed, none of them special or `forbidden`."""
    allowed = [t for t in range(FIRST_WORD, vocabulary) if t not in set(forbidden)]
    generator = torch.Generator().manual_seed(seed)
    return [allowed[int(i)] for i in torch.randint(0, len(allowed), (length,), generator=generator)]


def text_inputs(
    model: PreTrainedModel,
    lengths: Sequence[int] = (16, 11),
    padding_side: str = "left",
    forbidden: Iterable[int] = (),
) -> dict[str, Tensor]:
    """Make a padded batch of prompts with planted sinks: the first token of each, and one amid the first prompt.

    Parameters
    ----------
    model : PreTrainedModel
        The model; its device is used.
    lengths : sequence of int
        Real tokens of each prompt.
    padding_side : str
        ``"left"`` or ``"right"``.
    forbidden : iterable of int
        Token ids to leave out: placeholders of images and sounds.

    Returns
    -------
    dict of str to Tensor
        ``input_ids`` and ``attention_mask``, (B, S) int64.
    """
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for b, length in enumerate(lengths):
        tokens = words(length, seed=b, forbidden=forbidden)
        for position in planted_positions(b, length):
            tokens[position] = SINK_TOKEN
        start = longest - length if padding_side == "left" else 0
        ids[b, start : start + length] = torch.tensor(tokens)
        mask[b, start : start + length] = 1
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def planted_positions(sequence: int, length: int) -> list[int]:
    """Return where `text_inputs` plants sinks, counted from the first real token."""
    return [0, length // 2] if sequence == 0 and length > 4 else [0]
