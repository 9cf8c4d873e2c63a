"""What a study does: settings as data, so that they go into its manifest and a resumed run is the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.registry import settings_of

#: The questions, in the order in which they are asked and reported.
QUESTIONS = ("identification", "heads", "values", "causality")


@dataclass(frozen=True)
class Plan:
    """Settings of a study.

    Attributes
    ----------
    questions : tuple of str
        Some of `QUESTIONS`.
    gammas : tuple of float
        Strengths of the rotation.
    tau : float
        Temperature of its gate.
    seeds : int
        How many draws a random arm gets.
    calibration : int
        How many of the first items find the sink dimensions and the mean sink values.
    heads_items : int
        On how many items every head is zeroed.
    heads_every : int
        Zero the heads of every so many-th layer; 1 is all.
    pruning_items : int
        On how many items tokens are pruned.
    pruning_layers : tuple of int, optional
        Layers that rank; None is 3 and 5, the paper's, and six spread over the decoder.
    keeps : tuple of float
        Shares of the video and audio tokens that are kept.
    seed : int
        Of everything random.
    methods : mapping of str to Method
        Further arms of the causal question, by name.

    Raises
    ------
    OmnisinkError
        If a question is unknown, a number out of range, or methods are named without the causal question.
    """

    questions: tuple[str, ...] = QUESTIONS
    gammas: tuple[float, ...] = (3.0,)
    tau: float = 0.1
    seeds: int = 3
    calibration: int = 20
    heads_items: int = 16
    heads_every: int = 1
    pruning_items: int = 40
    pruning_layers: tuple[int, ...] | None = None
    keeps: tuple[float, ...] = (0.5, 0.2)
    seed: int = 0
    methods: Mapping[str, Method] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [q for q in self.questions if q not in QUESTIONS]:
            raise OmnisinkError(f"unknown question {unknown[0]!r}: use all, or some of {', '.join(QUESTIONS)}")
        if not self.questions or len(set(self.questions)) < len(self.questions):
            raise OmnisinkError("name each question once, and one at least")
        if not self.gammas or any(not 0 < g < float("inf") for g in self.gammas):
            raise OmnisinkError(f"gammas must be positive numbers, got {list(self.gammas)}: the arms turn away too")
        for name in ("seeds", "calibration", "heads_items", "heads_every", "pruning_items"):
            if getattr(self, name) < 1:
                raise OmnisinkError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not all(0 < k <= 1 for k in self.keeps):
            raise OmnisinkError(f"keeps must be over 0 and at most 1, got {list(self.keeps)}")
        if self.methods and not self.asks("causality"):
            raise OmnisinkError("methods are arms of the causal question: ask causality too, or name no methods")

    def asks(self, question: str) -> bool:
        """Whether a question is part of the study."""
        return question in self.questions

    def ranking_layers(self, depth: int) -> list[int]:
        """Return the layers at which tokens are ranked for pruning, of a decoder with `depth` layers."""
        if self.pruning_layers is not None:
            return [layer for layer in self.pruning_layers if layer < depth - 1]
        spread = {round(depth * share) for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)}
        return sorted(layer for layer in {3, 5, *spread} if layer < depth - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data; of methods, their classes, settings and code."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        methods = {name: settings_of(method) for name, method in self.methods.items()}
        return {**{k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}, "methods": methods}


def parse_questions(text: str) -> tuple[str, ...]:
    """Read ``all`` or a list with commas, in the order of `QUESTIONS`."""
    if text.strip() == "all":
        return QUESTIONS
    named: Sequence[str] = [part.strip() for part in text.split(",") if part.strip()]
    unknown = tuple(q for q in named if q not in QUESTIONS)
    return (*unknown, *(q for q in QUESTIONS if q in named))
