"""What makes a token a sink, as settings that can be compared and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from omnisink.maths.bounds import check_threshold
from omnisink.maths.sinks import massive_activation_sinks, sink_dimension_sinks


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


@dataclass(frozen=True)
class SinkDimension:
    """A token stands out in known channels: ``max |h[t, c]| / RMS(h[t]) >= threshold`` (Kang et al. 2025).

    Parameters
    ----------
    channels : tuple of int
        The model's sink channels. They differ from model to model and have no default.
    threshold : float
        Multiple of the token's root mean square.

    Raises
    ------
    ValueError
        If no channel is given or the threshold is not positive.
    """

    channels: tuple[int, ...]
    threshold: float = 20.0

    name: ClassVar[str] = "sink_dimension"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(int(c) for c in self.channels))
        if not self.channels:
            raise ValueError(
                "the sink-dimension criterion needs the model's sink channels, for example channels=(138, 378)"
            )
        check_threshold("threshold", self.threshold)

    def __call__(self, hidden: Tensor, token_mask: Tensor | None) -> Tensor:
        """Mark the sinks of (B, S, d); see `omnisink.maths.sinks.sink_dimension_sinks`."""
        return sink_dimension_sinks(hidden, token_mask, channels=self.channels, threshold=self.threshold)


@dataclass(frozen=True)
class Positions:
    """Tokens at known positions, at every layer: for planted sinks, and where a first pass has found them.

    Parameters
    ----------
    positions : tuple of int
        Counted from the first real token of each prompt, so that padding does not move them.

    Raises
    ------
    ValueError
        If one is negative.
    """

    positions: tuple[int, ...]

    name: ClassVar[str] = "positions"

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", tuple(int(p) for p in self.positions))
        if any(p < 0 for p in self.positions):
            raise ValueError(f"positions count from the first real token and are not negative, got {self.positions}")

    def __call__(self, hidden: Tensor, token_mask: Tensor | None) -> Tensor:
        """Mark the positions in (B, S, d); those beyond the prompt are ignored."""
        if token_mask is None:
            token_mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        place = token_mask.cumsum(dim=1) - 1
        wanted = torch.tensor(self.positions, dtype=place.dtype, device=place.device)
        return torch.isin(place, wanted) & token_mask


@dataclass(frozen=True)
class RandomTokens:
    """As many tokens as another criterion marks, chosen at random among those that it does not mark.

    The control for what is done to sinks: the same number of tokens at the same layers, but no sinks.

    Parameters
    ----------
    like : Criterion
        The criterion whose number of tokens is taken.
    seed : int
        Of the choice. The same tokens are preferred at every layer of every prompt of one length.
    """

    like: Criterion
    seed: int = 0

    name: ClassVar[str] = "random_tokens"

    def __call__(self, hidden: Tensor, token_mask: Tensor | None) -> Tensor:
        """Mark random tokens of (B, S, d)."""
        marked = self.like(hidden, token_mask)
        free = ~marked if token_mask is None else token_mask & ~marked
        place = free.cumsum(dim=1)
        draws = torch.rand(hidden.shape[1] + 1, generator=torch.Generator().manual_seed(self.seed))
        draw = draws.to(hidden.device)[place].masked_fill(~free, 2.0)
        count = torch.minimum(marked.sum(dim=1), free.sum(dim=1))
        rank = draw.argsort(dim=1).argsort(dim=1)
        return free & (rank < count[:, None])


def mark_sinks(criterion: Criterion, hidden: Tensor, token_mask: Tensor | None, magnitude: Tensor) -> Tensor:
    """Mark sinks, (B, S) bool, where the largest activations (B, S) are known; those that need them take them."""
    if type(criterion) is MassiveActivation:
        return criterion(hidden, token_mask, magnitude)
    return criterion(hidden, token_mask)


def resolve_criterion(criterion: str | Criterion, channels: Sequence[int] | None = None) -> Criterion:
    """Turn a name into a criterion with its default settings.

    Parameters
    ----------
    criterion : str or Criterion
        ``"massive_activation"``, ``"sink_dimension"``, or settings as an object.
    channels : sequence of int, optional
        Sink channels, for ``"sink_dimension"`` by name.

    Returns
    -------
    Criterion
        The settings.

    Raises
    ------
    ValueError
        If the name is unknown, or channels are missing or given to a criterion that has none.
    """
    if criterion == SinkDimension.name:
        return SinkDimension(tuple(channels or ()))
    if channels is not None:
        raise ValueError("channels belong to the criterion named 'sink_dimension' only")
    if criterion == MassiveActivation.name:
        return MassiveActivation()
    if isinstance(criterion, str) or not callable(criterion):
        raise ValueError(
            f"unknown criterion {criterion!r}: use '{MassiveActivation.name}', '{SinkDimension.name}' or an object"
        )
    return criterion


def describe(criterion: Any) -> dict[str, Any]:
    """Name and settings of a criterion, as plain data for a record."""
    settings = dict(vars(criterion)) if hasattr(criterion, "__dict__") else {}
    plain = {
        k: list(v) if isinstance(v, tuple) else describe(v) if isinstance(v, Criterion) else v
        for k, v in settings.items()
    }
    return {"name": getattr(criterion, "name", type(criterion).__name__), **plain}
