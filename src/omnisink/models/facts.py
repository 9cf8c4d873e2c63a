"""Facts about a checkpoint that its folder gives before the weights are loaded, which can take half a minute."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

from omnisink.errors import OmnisinkError
from omnisink.models import embedded, smolomni
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.registry import adapter_of
from omnisink.models.adapters.spans import Modality
from omnisink.models.adapters.video_llama2_av import VideoLLaMA2AV
from omnisink.models.gguf.architectures import peek
from omnisink.models.hub import find_cached
from omnisink.models.ports import known_type
from omnisink.models.ports.ears import SUFFIX, will_hear


class Question(Protocol):
    """A question, as far as its files are concerned."""

    @property
    def video(self) -> Path | None:
        """A video."""

    @property
    def image(self) -> Path | None:
        """A picture."""

    @property
    def audio(self) -> Path | Literal[False] | None:
        """A file with sound; anything else means that there is no separate sound file."""


#: Any of these files says that a processor was saved with the model.
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
#: The part that is loaded of omni models that also speak.
_THINKER = {"qwen2_5_omni": "qwen2_5_omni_thinker", "qwen3_omni_moe": "qwen3_omni_moe_thinker"}
#: The embedded models: their types, and whether they have a processor.
_EMBEDDED = {embedded.NAME: ("llama", False), smolomni.NAME: ("qwen2_5_omni_thinker", True)}


def check_can_answer(
    name_or_path: str | Path, modalities: Collection[Modality], *, revision: str | None = None
) -> None:
    """Refuse media that a model does not take, by its configuration only.

    Parameters
    ----------
    name_or_path : str or Path
        See `load_model`.
    modalities : collection of str
        Modalities beside text that it is to be asked about: some of ``"image"``, ``"video"``, ``"audio"``.
    revision : str, optional
        Branch, tag or commit on the Hub.

    Raises
    ------
    OmnisinkError
        If the family lacks a modality, no processor was saved with the model, or no adapter is for its family. A
        model that is not on this machine, or whose configuration cannot be read, passes: `load_model` says why.
    """
    if (problem := _problem(name_or_path, modalities, revision)) is not None:
        raise OmnisinkError(problem)


def check_can_answer_some(
    name_or_path: str | Path, questions: Iterable[Question], *, revision: str | None = None
) -> None:
    """Refuse a set of questions if the model can be asked none of them, by its configuration only.

    Parameters
    ----------
    name_or_path, revision
        See `check_can_answer`.
    questions : iterable of Item or Instance
        The questions. If the model can be asked some of them, each of the others becomes an error of its own.

    Raises
    ------
    OmnisinkError
        See `check_can_answer`; raised if every question has a problem.
    """
    problems = [_problem(name_or_path, needed, revision) for needed in {frozenset(_needs(q)) for q in questions}]
    if problems and None not in problems:
        raise OmnisinkError(str(problems[0]))


def _problem(name_or_path: str | Path, modalities: Collection[Modality], revision: str | None) -> str | None:
    """Say why a model cannot be asked about modalities, or None."""
    found = known_adapter(name_or_path, revision=revision) if modalities else None
    lacking = [m for m in sorted(modalities) if found is not None and m not in found.modalities]
    return found.lacks(str(name_or_path), lacking[0]) if found is not None and lacking else None


def _needs(question: Question) -> Iterator[Modality]:
    if question.video is not None:
        yield "video"
    if question.image is not None:
        yield "image"
    if isinstance(question.audio, Path):
        yield "audio"


def known_adapter(name_or_path: str | Path, *, revision: str | None = None) -> Adapter | None:
    """Return the adapter that a model will have, or None where its configuration is not on this machine."""
    name = str(name_or_path)
    if name.lower() in _EMBEDDED:
        model_type, with_processor = _EMBEDDED[name.lower()]
        return adapter_of(model_type, with_processor=with_processor)
    if (packed := peek(name)) is not None:
        return adapter_of(packed[0], with_processor=False)
    local = Path(name).expanduser()
    folder = local if local.exists() else find_cached(name, revision)
    config = None if folder is None else _read(folder / "config.json")
    if folder is None or config is None:
        return None
    thinker = config.get("thinker_config")
    model_type = known_type(config)
    if isinstance(thinker, dict):
        model_type = str(thinker.get("model_type") or _THINKER.get(model_type))
    if f"{model_type}{SUFFIX}" in VideoLLaMA2AV.model_types and will_hear(folder, config):
        model_type += SUFFIX
    return adapter_of(model_type, with_processor=any((folder / file).is_file() for file in PROCESSOR_FILES))


def model_type_of(folder: Path) -> str:
    """Return the model type of a folder's config.json, see `known_type`; empty where it cannot be read."""
    return known_type(_read(folder / "config.json") or {})


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
