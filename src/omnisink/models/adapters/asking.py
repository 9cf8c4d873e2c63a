"""From what a caller says to prompts, and from prompts to answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.generated import new_tokens
from omnisink.models.adapters.registry import adapter_of
from omnisink.models.context import room_for_answers, warn_of_cut
from omnisink.models.finite import finite_logits
from omnisink.models.last_rows import last_rows
from omnisink.models.writer import ends_of
from omnisink.questions.choices import check_choices
from omnisink.questions.parsing import parse_letter
from omnisink.questions.prompt import Encoded, Facts, Prompt

if TYPE_CHECKING:
    from omnisink.media import FrameChoice
    from omnisink.models.adapters.spans import Span
    from omnisink.models.parts import ModelParts

#: A file, or the same for every question of a batch, or None.
Source = str | Path | None


@dataclass(frozen=True)
class Answer:
    """The answer of a model to one question.

    Attributes
    ----------
    text : str
        The answer, without special tokens.
    choice : str or None
        The letter it names, where there were choices and it names one.
    facts : Facts
        Numbers of tokens of each modality, seconds of sound, and what was read of the files.
    trace : object or None
        Trace of the method, if there was one; shared by all answers of a batch.
    new_tokens : int
        Number of generated tokens, with the one that ends the answer; an empty answer has only that one.
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
        Choices of one question, or a list of choices for each question.
    system, frames
        System message and choice of frames for all questions.
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
    several = isinstance(question, Iterable) and not isinstance(question, str)
    questions: list[Any] = list(question) if several else [question]
    if not questions:
        raise OmnisinkError("there is no question")
    if any(not isinstance(q, str) for q in questions):
        raise OmnisinkError(f"the question must be a text, or a list of texts, got {question!r}")
    if any(not q.strip() for q in questions):
        raise OmnisinkError("the question is empty")
    if choices and not isinstance(choices[0], str | list | tuple | None):
        raise OmnisinkError(f"choices must be two texts or more, got {choices!r}")
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
    parts: ModelParts,
    inputs: Encoded,
    *,
    max_new_tokens: int,
    method: Callable[[Any], AbstractContextManager[Any]] | None = None,
    streamer: Any = None,
    **options: Any,
) -> list[Answer]:
    """Generate the answers to a batch, greedily unless `options` say otherwise.

    Parameters
    ----------
    parts : ModelParts
        Model, tokenizer and processor.
    inputs : Encoded
        The prompts, encoded.
    max_new_tokens : int
        Longest answer. Where the model's context ends earlier, the answer ends there.
    method : callable, optional
        Such as ``OutRo(gamma=0.3)``; ``with method(model):`` is put around the generation.
    streamer : object, optional
        Given the tokens of a single prompt as they are made, as transformers' `TextStreamer`.
    **options
        For `generate`. With ``do_sample=True`` the checkpoint's own temperature and bounds hold unless given.

    Returns
    -------
    list of Answer
        One for each prompt. One that ends at once has an empty text and one token.

    Raises
    ------
    OmnisinkError
        If `generate` did not return one answer of at least one token for each prompt, or if the logits or the
        residual stream are not finite: an answer would mean nothing.
    """
    import torch

    adapter = adapter_of(parts.model.config.model_type, with_processor=parts.processor is not None)
    if max_new_tokens < 1:
        raise OmnisinkError(f"max_new_tokens must be a positive number, got {max_new_tokens}")
    if not hasattr(parts.model, "generate"):
        raise OmnisinkError(
            f"{parts.name} cannot be asked: {type(parts.model).__name__} has no generate(); `omnisink find` needs none"
        )
    room = room_for_answers(parts, inputs, max_new_tokens)
    most = max(room)
    flags = {**adapter.generate_options(most), **options}
    if flags.get("do_sample"):
        flags = {name: value for name, value in flags.items() if value is not None or name in options}
    if streamer is not None:
        flags["streamer"] = streamer
    block = attached(method, parts, inputs)
    with torch.inference_mode(), last_rows(parts.model), finite_logits(parts.model), block as trace:
        returned = adapter.generate(parts, inputs, **flags)
    ends = ends_of(parts.model)
    # Who gives embeddings to `generate` gets new tokens only.
    prompt = inputs["input_ids"] if inputs.modalities is None else inputs["input_ids"][:, :0]
    made = new_tokens(returned, prompt, int(flags["max_new_tokens"]))
    answers = []
    for row, count, prompt, facts in zip(made.tolist(), room, inputs.prompts, inputs.facts, strict=True):
        kept = row[:count]
        if count < max_new_tokens and len(kept) == count and not ends & set(kept):
            warn_of_cut(parts, count)
        text = parts.tokenizer.decode(kept, skip_special_tokens=True).strip()
        choice = parse_letter(text, len(prompt.choices)) if prompt.choices else None
        answers.append(Answer(text, choice, facts, trace, _length(kept, ends)))
    return answers


def attached(
    method: Callable[..., AbstractContextManager[Any]] | None, parts: ModelParts, inputs: Any
) -> AbstractContextManager[Any]:
    """Return the block in which a method acts on the answers to some prompts; one without a method does nothing.

    A method that asks for the modalities of tokens is given them as the adapter has them, which may know more than ids
    say: where frames are pictures to a model, they are video all the same. Inputs that no adapter made have ids only.
    """
    if method is None:
        return nullcontext()
    if not getattr(method, "needs_spans", False) or not isinstance(inputs, Encoded):
        return method(parts)
    adapter = adapter_of(parts.model.config.model_type, with_processor=parts.processor is not None)
    return method(parts, spans=spans_for(parts, adapter.spans(parts, inputs), inputs["input_ids"].shape[1]))


def spans_for(parts: ModelParts, rows: Sequence[Sequence[Span]], length: int) -> dict[str, Any]:
    """Return spans of prompts as a method takes them: (B, S) bool for each modality that becomes tokens."""
    import torch

    from omnisink.decoder.spans import masks_of_spans

    adapter = adapter_of(parts.model.config.model_type, with_processor=parts.processor is not None)
    masks = masks_of_spans(rows, length)
    for modality in (adapter.modalities if adapter.media_are_tokens else frozenset()) - masks.keys():
        masks[modality] = torch.zeros(len(rows), length, dtype=torch.bool)
    return masks


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
