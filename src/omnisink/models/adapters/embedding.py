"""Prompts that are given as embeddings: their rows, their modalities, and what a model is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.spans import Modality

if TYPE_CHECKING:
    import torch

    from omnisink.models.parts import ModelParts

_MODALITIES = ("text", "image", "video", "audio")


def embed_rows(parts: ModelParts, rows: Sequence[Sequence[tuple[Modality, Any]]]) -> dict[str, Any]:
    """Embed prompts of text and media, and pad them on the left.

    Parameters
    ----------
    parts : ModelParts
        The model, whose input embeddings are used for text, and its tokenizer.
    rows : sequence of sequences of (str, object)
        Pieces of every prompt, in order: ``("text", text)`` with a text or a sequence of token ids, and
        ``("video", features)`` with a tensor (N, d), as the model's towers and projector make them. Special tokens are
        added to no text.

    Returns
    -------
    dict
        ``inputs_embeds`` (B, S, d), ``attention_mask`` and ``input_ids`` (B, S) int64, and ``modalities``, a list of
        lists of str: what `Adapter.process` returns. ``input_ids`` has the padding token where there is media.

    Raises
    ------
    OmnisinkError
        If a modality is unknown, or features are not of the width of the embeddings.
    """
    import torch

    tokenizer, table = parts.tokenizer, parts.model.get_input_embeddings()
    filler = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    device, made = parts.model.device, []
    for row in rows:
        ids: list[int] = []
        modalities: list[str] = []
        embedded = []
        for modality, piece in row:
            if modality == "text":
                tokens = tokenizer.encode(piece, add_special_tokens=False) if isinstance(piece, str) else list(piece)
                features = table(torch.tensor(tokens, dtype=torch.long, device=device))
            else:
                features = _checked(parts, modality, piece)
                tokens = [filler] * len(features)
            ids += tokens
            modalities += [modality] * len(tokens)
            embedded.append(features.to(device, parts.model.dtype))
        made.append((ids, modalities, torch.cat(embedded)))
    longest = max(len(ids) for ids, _, _ in made)
    missing = [longest - len(ids) for ids, _, _ in made]
    return {
        "inputs_embeds": torch.stack(
            [torch.nn.functional.pad(e, (0, 0, n, 0)) for n, (_, _, e) in _both(missing, made)]
        ),
        "attention_mask": torch.tensor([[0] * n + [1] * len(ids) for n, (ids, _, _) in _both(missing, made)]),
        "input_ids": torch.tensor([[filler] * n + ids for n, (ids, _, _) in _both(missing, made)]),
        "modalities": [["text"] * n + modalities for n, (_, modalities, _) in _both(missing, made)],
    }


def _both(missing: list[int], made: list[Any]) -> Any:
    return zip(missing, made, strict=True)


def _checked(parts: ModelParts, modality: str, features: Any) -> Any:
    width = parts.model.get_input_embeddings().weight.shape[1]
    if modality not in _MODALITIES:
        raise OmnisinkError(f"unknown modality {modality!r}: use some of {', '.join(_MODALITIES)}")
    if getattr(features, "ndim", None) != 2 or features.shape[1] != width:
        shape = tuple(features.shape) if hasattr(features, "shape") else type(features).__name__
        raise OmnisinkError(
            f"the features of {modality} are {shape}, and {parts.name} takes (tokens, {width}): one row for each token"
        )
    return features


def check_columns(name: str, made: Mapping[str, Any], modalities: Sequence[Sequence[str]]) -> None:
    """Refuse modalities that are not those of the embeddings.

    Raises
    ------
    OmnisinkError
        If there are no embeddings, or a row of modalities, ids or mask has another length.
    """
    embeds = made.get("inputs_embeds")
    if embeds is None:
        raise OmnisinkError(f"the adapter of {name} returns modalities without inputs_embeds, to which they belong")
    shape = tuple(embeds.shape[:2])
    shapes = {key: tuple(made[key].shape) if key in made else None for key in ("input_ids", "attention_mask")}
    shapes["modalities"] = (len(modalities), len(modalities[0]))
    if any(len(row) != shape[1] for row in modalities):
        shapes["modalities"] = (len(modalities), max(map(len, modalities)))
    if wrong := [key for key, found in shapes.items() if found != shape]:
        raise OmnisinkError(
            f"the adapter of {name} returns inputs_embeds for {shape[0]} x {shape[1]} tokens and {wrong[0]} of "
            f"{shapes[wrong[0]]}: each has one entry for each embedding"
        )


def given(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model is called with: embeddings in place of ids, where there are embeddings."""
    return {name: value for name, value in inputs.items() if name != "input_ids" or "inputs_embeds" not in inputs}


def placed(value: Any, device: Any, dtype: torch.dtype | None = None) -> Any:
    """Put tensors on a device, also those in lists, tuples and dictionaries.

    Parameters
    ----------
    value : object
        A tensor, or tensors in lists, tuples and mappings; anything else is returned as it is.
    device : torch.device
        Where they are to be.
    dtype : torch.dtype, optional
        That of pictures and spectrograms: floating-point tensors of two dimensions or more. None leaves it.

    Returns
    -------
    object
        The same, on the device.
    """
    if isinstance(value, Mapping):
        moved = {name: placed(one, device, dtype) for name, one in value.items()}
        return type(value)(moved) if not isinstance(value, dict) else moved  # type: ignore[call-arg]
    if isinstance(value, list):
        return [placed(one, device, dtype) for one in value]
    if isinstance(value, tuple):
        moved_all = [placed(one, device, dtype) for one in value]
        return type(value)(*moved_all) if hasattr(value, "_fields") else tuple(moved_all)
    if not hasattr(value, "is_floating_point"):
        return value
    if dtype is not None and value.is_floating_point() and value.dim() > 1:
        return value.to(device, dtype)
    return value.to(device)
