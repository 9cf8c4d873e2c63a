"""Checks of a question and its media before a processor sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omnisink.errors import MediaError, OmnisinkError

if TYPE_CHECKING:
    from pathlib import Path

    from omnisink.models.parts import ModelParts
    from omnisink.questions.prompt import Prompt

#: Attributes of processors, tokenizers and configurations that name a token which stands for media or frames it.
_MEDIA = re.compile(r"^(?!user).*(image|video|audio|vision|speech|boi|eoi|boa|eoa|bov|eov).*token(_id|_index)?$")
#: So many times as long as wide, or as wide as long: what the image processors of the Qwen family accept at most.
MAX_ASPECT = 200


def media_tokens(parts: ModelParts) -> frozenset[str]:
    """Return the texts of the tokens that stand for media in a model's prompts, or come before and after it."""
    if parts.processor is None:  # To a text model they are words as others.
        return frozenset()
    found: set[str] = set()
    for owner in (parts.processor, parts.tokenizer):
        found.update(str(value) for value in _named(owner) if isinstance(value, str) or hasattr(value, "content"))
    ids = [value for value in _named(parts.model.config) if type(value) is int and value >= 0]
    if ids:
        found.update(str(token) for token in parts.tokenizer.convert_ids_to_tokens(ids) if token is not None)
    return frozenset(token for token in found if token.strip())


def _named(owner: Any) -> Iterator[Any]:
    # Tokenizers keep theirs in a mapping and give them out as attributes.
    known = {**getattr(owner, "special_tokens_map", {}), **getattr(owner, "__dict__", {})}
    yield from (value for name, value in known.items() if _MEDIA.match(name.lstrip("_")))


def refuse_media_tokens(parts: ModelParts, prompt: Prompt, tokens: frozenset[str]) -> None:
    """Refuse a text that quotes one of `media_tokens`: the processor would put media, or nothing, in its place.

    Raises
    ------
    OmnisinkError
        Names the token, and where it stands.
    """
    places = {"the question": prompt.question, "the system message": prompt.system or ""}
    places |= {f"choice {i}": choice for i, choice in enumerate(prompt.choices, 1)}
    places["the beginning of the answer"] = prompt.reply
    for where, text in places.items():
        if quoted := next((token for token in sorted(tokens, key=len, reverse=True) if token in text), None):
            raise OmnisinkError(
                f"{where} holds {quoted}, the token that {parts.name} takes for media: write it otherwise, as with "
                "spaces in it"
            )


@contextmanager
def named(name: str, prompts: Sequence[Prompt]) -> Iterator[None]:
    """Turn what a processor raises into one line with the files of the batch; a lack of memory passes.

    Raises
    ------
    MediaError
        Names the files, where there are any; else it is an `OmnisinkError`.
    """
    try:
        yield
    except OmnisinkError:
        raise
    except (ArithmeticError, AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, RuntimeError) and "memory" in reason:
            raise
        files = list(dict.fromkeys(str(f) for p in prompts for f in (p.video, p.image, p.sound) if f is not None))
        message = f"the processor of {name} refuses it: {reason}"
        if files:
            raise MediaError(f"{', '.join(files)}: {message}") from error
        raise OmnisinkError(f"{prompts[0].question[:60]!r}: {message}") from error


def refuse_long_picture(path: Path | None, height: int, width: int) -> None:
    """Refuse a picture that is more than 200 times as long as wide, on which image processors fail.

    Raises
    ------
    MediaError
        Names the file and its size.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise MediaError(
            f"{path}: a picture of {width} x {height} pixels is too long: one side is over {MAX_ASPECT} times the "
            "other. Crop it"
        )


def refuse_short_sound(path: Path | None, samples: int, rate: int, tokens: int) -> None:
    """Refuse a sound that is shorter than what one audio token of the model stands for.

    Raises
    ------
    MediaError
        Names the file and the length of its sound.
    """
    if tokens < 1:
        raise MediaError(
            f"{path}: its sound is too short: {samples:,} samples, {samples / rate:.3f} s, make no audio token. Give "
            "a longer one, or leave it out"
        )
