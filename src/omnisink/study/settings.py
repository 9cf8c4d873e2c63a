"""What every question of a study reads of its settings: strengths, draws and how many items the costly parts get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the questions of a study.

    Attributes
    ----------
    gammas : tuple of float
        Strengths of the rotation.
    direction_gammas : tuple of float
        Strengths of the rotation where the question is what its direction says; each is tried with both signs.
    layer_parts : int
        Into how many parts the layers that have a sink are divided, to ask where the direction acts.
    tau : float
        Temperature of its gate.
    seeds : int
        How many draws a random condition gets.
    calibration : int
        How many of the first items find the sink dimensions and the mean sink values.
    heads_items : int
        On how many items every head is zeroed.
    heads_every : int
        Zero the heads of every layer whose number is a multiple of this; 1 is all.
    pruning_items : int
        On how many items tokens are pruned.
    pruning_layers : tuple of int, optional
        Layers that rank; None is 3 and 5, the paper's, and six spread over the decoder.
    keeps : tuple of float
        Shares of the video and audio tokens that are kept.
    seed : int
        Seed of everything random.
    methods : mapping of str to Method
        Further conditions of the causal question, by name.

    Raises
    ------
    OmnisinkError
        If a number is out of range.
    """

    gammas: tuple[float, ...] = (3.0,)
    direction_gammas: tuple[float, ...] = (0.1, 0.3, 0.5, 1.0, 3.0)
    layer_parts: int = 3
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
        for name in ("gammas", "direction_gammas"):
            given = getattr(self, name)
            if not given or any(not 0 < g < float("inf") for g in given):
                raise OmnisinkError(
                    f"{name} must be positive numbers, got {list(given)}: the conditions turn away too"
                )
        for name in ("layer_parts", "seeds", "calibration", "heads_items", "heads_every", "pruning_items"):
            if getattr(self, name) < 1:
                raise OmnisinkError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not all(0 < k <= 1 for k in self.keeps):
            raise OmnisinkError(f"keeps must be over 0 and at most 1, got {list(self.keeps)}")

    def ranking_layers(self, depth: int) -> list[int]:
        """Return the layers at which tokens are ranked for pruning, of a decoder with `depth` layers."""
        if self.pruning_layers is not None:
            return [layer for layer in self.pruning_layers if layer < depth - 1]
        spread = {round(depth * share) for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)}
        return sorted(layer for layer in {3, 5, *spread} if layer < depth - 1)
