"""From what a caller says to prompts, and from prompts to answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.prompt import Encoded, Facts, Prompt, check_choices, parse_letter
from omnisink.models.finite import finite_logits
from omnisink.models.last_rows import last_rows

if TYPE_CHECKING:
    from omnisink.media import FrameChoice
    from omnisink.models.loaded import Loaded

#: A file, or the same for every question of a batch, or None.
Source = str | Path | None


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question.

    Attributes
    ----------
    text : str
        The answer, without special tokens.
    choice : str or None
        The letter it names, where there were choices and it names one.
    facts : Facts
        Numbers of tokens of each modality, seconds of sound, and what was read of the files.
    trace : object or None
        What the method did, where there was one; shared by all answers of a batch.
    new_tokens : int
        How many tokens were generated, the one that ends the answer included.
    """

    text: str
    choice: str | None
    facts: Facts
    trace: Any = None
    new_tokens: int = 0


def gather(
    question: str | Sequence[str],
    *,
    video: Any = None,
    audio: Any = None,
    image: Any = None,
    choices: Any = None,
    system: str | None = None,
    frames: FrameChoice | None = None,
    hears: bool,
) -> list[Prompt]:
    """Make prompts of what the caller gave.

    Parameters
    ----------
    question : str or sequence of str
        One question, or a batch.
    video, image : path, optional
        One for all questions, or a list with one for each.
    audio : path, bool or None
        A file with sound; True or None: the video's own sound, where the model hears; False: none. Or a list.
    choices : sequence of str, optional
        Of one question, or of each: a list of lists.
    system, frames
        For all questions.
    hears : bool
        Whether the model takes sound.

    Returns
    -------
    list of Prompt
        One for each question.

    Raises
    ------
    OmnisinkError
        If a question is empty, lists differ in length, or sound is asked of a video that is not there.
    """
    questions = [question] if isinstance(question, str) else list(question)
    if not questions:
        raise OmnisinkError("there is no question")
    if any(not q.strip() for q in questions):
        raise OmnisinkError("the question is empty")
    if choices is not None and choices and isinstance(choices[0], str):
        choices = [choices] * len(questions)
    columns = {
        name: _column(name, value, len(questions))
        for name, value in (("video", video), ("audio", audio), ("image", image), ("choices", choices))
    }
    prompts = []
    for i, asked in enumerate(questions):
        film, sound = columns["video"][i], columns["audio"][i]
        if sound is True and film is None:
            raise OmnisinkError("audio=True means the sound of the video, and there is no video")
        own = sound is True or (sound is None and film is not None and hears)
        heard = film if own else None if sound is None or sound is False else sound
        prompts.append(
            Prompt(
                asked,
                _path(film),
                _path(columns["image"][i]),
                _path(heard),
                check_choices(columns["choices"][i]),
                system,
                frames,
            )
        )
    return prompts


def answer(
    loaded: Loaded,
    inputs: Encoded,
    *,
    max_new_tokens: int,
    method: Callable[[Any], AbstractContextManager[Any]] | None = None,
    **options: Any,
) -> list[Answer]:
    """Generate the answers to a batch, greedily unless `options` say otherwise.

    Parameters
    ----------
    loaded : Loaded
        Model and processor.
    inputs : Encoded
        The prompts, encoded.
    max_new_tokens : int
        Longest answer.
    method : callable, optional
        Such as ``OutRo(gamma=0.3)``; ``with method(model):`` is put around the generation.
    **options
        For `generate`.

    Returns
    -------
    list of Answer
        One for each prompt.

    Raises
    ------
    OmnisinkError
        If the logits or the residual stream are not finite: an answer would mean nothing.
    """
    import torch

    adapter = loaded.adapter
    flags = {**adapter.generate_options(max_new_tokens), **options}
    block: AbstractContextManager[Any] = nullcontext() if method is None else method(loaded.model)
    with torch.inference_mode(), last_rows(loaded.model), finite_logits(loaded.model), block as trace:
        output = loaded.model.generate(**inputs, **flags)
    new = output[:, inputs["input_ids"].shape[1] :]
    texts = [loaded.tokenizer.decode(row, skip_special_tokens=True).strip() for row in new]
    ends = _ends(loaded.model)
    return [
        Answer(text, parse_letter(text, len(p.choices)) if p.choices else None, facts, trace, _length(row, ends))
        for text, p, facts, row in zip(texts, inputs.prompts, inputs.facts, new.tolist(), strict=True)
    ]


def _ends(model: Any) -> set[int]:
    """Return the tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else set() if ends is None else {ends}


def _length(row: list[int], ends: set[int]) -> int:
    return next((i + 1 for i, token in enumerate(row) if token in ends), len(row))


def _column(name: str, value: Any, count: int) -> list[Any]:
    """Return one value for each question."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise OmnisinkError(f"{name} has {len(value)} entries for {count} questions")
    return list(value)


def _path(value: Any) -> Path | None:
    return None if value is None else Path(value)
