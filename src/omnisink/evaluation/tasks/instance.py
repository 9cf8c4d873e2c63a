"""One question of a benchmark as a protocol asks it: what the runner takes, whatever the file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Instance:
    """One question, ready to be asked and scored.

    Attributes
    ----------
    id : str
        Unique in its task, and the same under every protocol.
    text : str
        What the user says, choices included, to the letter.
    gold : str
        The right answer in the terms of the parser: a letter, ``"yes"``, a word.
    answers : tuple of str
        All answers there are, whose likelihoods can be compared; empty for a free answer.
    parser : str
        Name of the function of `omnisink.evaluation.tasks.answers` that reads the model's text.
    video, image : Path or None
        Files, inside the task's data folder.
    audio : Path, False or None
        A file of its own. None is the sound of the video; False leaves it out.
    system : str or None
        System message; None is the model family's own.
    text_first : bool
        Whether the text comes before the media in the user's message.
    reply : str
        What the model's answer is made to begin with, as ``"Best option:("``.
    max_new_tokens : int
        Longest answer.
    cluster : str
        What makes questions dependent: nearly always the video.
    options : tuple of str
        Texts of the choices, in the order of their letters; empty where there are none.
    groups : mapping of str to tuple of str
        For breakdowns, as ``{"task": ("AV Matching",)}``; a question can be in several groups of one kind.
    """

    id: str
    text: str
    gold: str
    answers: tuple[str, ...]
    parser: str
    cluster: str
    video: Path | None = None
    image: Path | None = None
    audio: Path | Literal[False] | None = None
    system: str | None = None
    text_first: bool = False
    reply: str = ""
    max_new_tokens: int = 16
    options: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def can_be_compared(self) -> bool:
        """Whether the right answer is one of two or more, so that its likelihood can be compared with the others'."""
        return len(self.answers) > 1 and self.gold in self.answers
