"""The context length of a model, and what is done with longer prompts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from omnisink.decoder.configuration import text_config
from omnisink.errors import OmnisinkError
from omnisink.models.parts import ModelParts

#: Names of the longest prompt in text configurations. Most families map theirs to the first.
_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")
#: Kinds of rotary scaling by which `max_position_embeddings` is the length before scaling.
_STRETCHED = ("linear", "dynamic", "ntk", "yarn")


class LongPromptWarning(UserWarning):
    """A prompt is longer than the model's context and was run because that was allowed, or left an answer no room."""


class UnheardWarning(UserWarning):
    """A model was loaded without the part that hears, or hears only a part of a sound."""


def context_length(config: Any) -> int | None:
    """Return how many positions a model was made for.

    Parameters
    ----------
    config : PretrainedConfig
        Configuration of the model; of a composite the text decoder's part is read.

    Returns
    -------
    int or None
        Tokens, with rotary scaling counted; None where the configuration names no limit, as of state-space models.
        A sliding window is not a limit: tokens behind it are not attended to, but they may be there.
    """
    text = text_config(config)
    length = next((value for name in _NAMES if (value := _positive(getattr(text, name, None)))), None)
    if length is None:
        return None
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) not in _STRETCHED:
        return length  # Also where each kind of layer has parameters of its own: those give the full length.
    factor = rope.get("factor")
    before = _positive(rope.get("original_max_position_embeddings")) or length
    return max(length, int(before * factor)) if isinstance(factor, int | float) and factor > 1 else length


def check_context(parts: ModelParts, inputs: Mapping[str, Any]) -> None:
    """Refuse a prompt that is longer than the model's context, before it is run.

    Parameters
    ----------
    parts : ModelParts
        The model; with `allow_long_prompts` the prompt is warned about instead, where its positions can be computed.
    inputs : mapping
        With ``input_ids`` and ``attention_mask``, (B, S).

    Raises
    ------
    OmnisinkError
        Names both numbers.
    """
    limit = context_length(parts.model.config)
    if limit is not None and inputs["input_ids"].shape[1] > limit:
        needed = max(_positions(parts.model, inputs))
        tokens = int(inputs["attention_mask"].sum(dim=1).max())
        check_length(parts, needed, "tokens" if needed == tokens else "positions")


def check_length(
    parts: ModelParts,
    needed: int,
    what: str = "tokens",
    *,
    subject: str = "the prompt has",
    remedy: str = "shorten the text, or take fewer frames or less sound",
) -> None:
    """Refuse this number of tokens, or warn; for callers who know the number before there are inputs."""
    limit = context_length(parts.model.config)
    if limit is None or needed <= limit:
        return
    message = f"{subject} {needed:,} {what}, more than the context of {parts.name}, which is {limit:,}"
    if parts.allow_long_prompts and _computes_positions(parts.model.config):
        warnings.warn(f"{message}: what the model says may mean nothing", LongPromptWarning, stacklevel=3)
        return
    raise OmnisinkError(
        f"{message}: {remedy}. To run it all the same: "
        "allow_long_prompt=True, or --allow-long-prompt on the command line"
        if _computes_positions(parts.model.config)
        else f"{message}: it has no positions for more"
    )


def room_for_answers(parts: ModelParts, inputs: Mapping[str, Any], wanted: int) -> list[int]:
    """Return how many tokens the answer to each prompt may have: as many as wanted, or as the context has left.

    Each prompt has its own number, so that an answer does not depend on the batch it was made in. A prompt that is
    longer than the context, and was allowed, may have all it wants.

    Parameters
    ----------
    parts : ModelParts
        The model.
    inputs : mapping
        With ``input_ids`` and ``attention_mask``, (B, S).
    wanted : int
        Longest answer.

    Returns
    -------
    list of int
        B numbers, each at least 1.
    """
    limit, count = context_length(parts.model.config), len(inputs["input_ids"])
    if limit is None or inputs["input_ids"].shape[1] + wanted <= limit:
        return [wanted] * count
    starts = _positions(parts.model, inputs)
    return [wanted if start >= limit else min(wanted, limit - start) for start in starts]


def warn_of_cut(parts: ModelParts, tokens: int) -> None:
    """Say that an answer was not at its end where the context was."""
    message = f"the answer was cut after {tokens} tokens, where the context of {parts.name} ends"
    warnings.warn(message, LongPromptWarning, stacklevel=4)


def _positions(model: Any, inputs: Mapping[str, Any]) -> list[int]:
    """Return how many positions each prompt of a batch takes.

    With multimodal rotary positions (M-RoPE) a video takes far fewer positions than tokens, and the context is a
    number of positions. Where few frames stand for a long time it is the other way round; then the tokens count.
    """
    tokens = [int(n) for n in inputs["attention_mask"].sum(dim=1)]
    rope = getattr(text_config(model.config), "rope_parameters", None) or {}
    locate = getattr(model, "_prepare_position_ids_for_generation", None)
    if "mrope_section" not in rope or locate is None:
        return tokens
    found = locate(inputs["input_ids"], {name: value for name, value in inputs.items() if name != "input_ids"})
    # The last three rows are time, height and width; families put one before them that counts tokens.
    last = found[-3:].amax(dim=(0, 2)) if found.dim() == 3 else found.amax(dim=1)
    return [min(n, int(at) + 1) for n, at in zip(tokens, last, strict=True)]


def _computes_positions(config: Any) -> bool:
    """Whether positions are rotary, without a last one, and not a table with a row for each."""
    text = text_config(config)
    return getattr(text, "rope_parameters", None) is not None or not hasattr(text, "max_position_embeddings")


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
