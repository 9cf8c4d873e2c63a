"""What a study does: settings as data, so that they go into its manifest and a resumed run is the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.methods.registry import settings_of
from omnisink.study.questions import QUESTIONS
from omnisink.study.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Plan(Settings):
    """Which questions a study asks, and their settings.

    Attributes
    ----------
    questions : tuple of str
        Names in `omnisink.study.questions.QUESTIONS`; all of them where none are given.

    Raises
    ------
    OmnisinkError
        If a question is unknown, a number out of range, or methods are named without the causal question.
    """

    questions: tuple[str, ...] = tuple(QUESTIONS)

    def __post_init__(self) -> None:
        if unknown := [q for q in self.questions if q not in QUESTIONS]:
            raise OmnisinkError(f"unknown question {unknown[0]!r}: use all, or some of {', '.join(QUESTIONS)}")
        if not self.questions or len(set(self.questions)) < len(self.questions):
            raise OmnisinkError("name each question once, and one at least")
        super().__post_init__()
        if self.methods and "causality" not in self.questions:
            raise OmnisinkError("methods are conditions of the causal question: ask causality too, or name no methods")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data; of methods, their classes, settings and code."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        methods = {name: settings_of(method) for name, method in self.methods.items()}
        return {**{k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}, "methods": methods}


def parse_questions(text: str) -> tuple[str, ...]:
    """Read ``all`` or a list with commas, in the order of `QUESTIONS`."""
    if text.strip() == "all":
        return tuple(QUESTIONS)
    named: Sequence[str] = [part.strip() for part in text.split(",") if part.strip()]
    unknown = tuple(q for q in named if q not in QUESTIONS)
    return (*unknown, *(q for q in QUESTIONS if q in named))
