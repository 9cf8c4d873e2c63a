"""What makes a token a sink, and the criterion that OutRo has by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from omnisink.maths.bounds import check_threshold
from omnisink.maths.sinks import massive_activation_sinks


@runtime_checkable
class Criterion(Protocol):
    """Anything that marks sinks in a residual stream."""

    name: ClassVar[str]

    def __call__(self, hidden: Tensor, token_mask: Tensor | None) -> Tensor:
        """Return (B, S) bool from the residual stream (B, S, d) and the real tokens (B, S), None for all."""


@dataclass(frozen=True)
class MassiveActivation:
    """The largest activation of a token is massive: ``m_t >= max(min_activation, median_ratio * median)``.

    Parameters
    ----------
    min_activation : float
        Smallest activation that counts (Sun et al. 2024: 100).
    median_ratio : float
        Multiple of the sequence's median activation (Sun et al. 2024: 1000).

    Raises
    ------
    ValueError
        If a threshold is not a positive number.
    """

    min_activation: float = 100.0
    median_ratio: float = 1000.0

    name: ClassVar[str] = "massive_activation"

    def __post_init__(self) -> None:
        for setting in ("min_activation", "median_ratio"):
            check_threshold(setting, getattr(self, setting))

    def __call__(self, hidden: Tensor, token_mask: Tensor | None, magnitude: Tensor | None = None) -> Tensor:
        """Mark the sinks of (B, S, d); see `omnisink.maths.sinks.massive_activation_sinks`."""
        return massive_activation_sinks(
            hidden,
            token_mask,
            min_activation=self.min_activation,
            median_ratio=self.median_ratio,
            magnitude=magnitude,
        )


def describe(criterion: Any) -> dict[str, Any]:
    """Name and settings of a criterion, as plain data for a record."""
    settings = dict(vars(criterion)) if hasattr(criterion, "__dict__") else {}
    plain = {
        k: list(v) if isinstance(v, tuple) else describe(v) if isinstance(v, Criterion) else v
        for k, v in settings.items()
    }
    return {"name": getattr(criterion, "name", type(criterion).__name__), **plain}
