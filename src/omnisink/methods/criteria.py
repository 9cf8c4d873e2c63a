"""The criteria for sinks beside the default: known channels, known positions, and controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.maths.bounds import check_threshold, whole_numbers
from omnisink.maths.sink_dimension import sink_dimension_sinks
from omnisink.methods.criterion import Criterion, MassiveActivation, describe
from omnisink.methods.marking import mark_sinks

__all__ = [
    "Criterion",
    "FirstToken",
    "MassiveActivation",
    "Positions",
    "RandomTokens",
    "SinkDimension",
    "describe",
    "mark_sinks",
    "resolve_criterion",
]


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
        object.__setattr__(self, "channels", whole_numbers("channels", self.channels))
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
        object.__setattr__(self, "positions", whole_numbers("positions", self.positions))
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


@dataclass(frozen=True)
class FirstToken:
    """What another criterion marks at the first token of a prompt; or, with `others`, everywhere but there.

    Parameters
    ----------
    like : Criterion
        The criterion whose marks are kept.
    others : bool
        Keep the marks at all other tokens instead.
    """

    like: Criterion
    others: bool = False

    name: ClassVar[str] = "first_token"

    def __call__(self, hidden: Tensor, token_mask: Tensor | None) -> Tensor:
        """Mark tokens of (B, S, d); padding before the first token does not count as one."""
        marked = self.like(hidden, token_mask)
        if token_mask is None:
            token_mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        first = token_mask & (token_mask.cumsum(dim=1) == 1)
        return marked & ~first if self.others else marked & first


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
        return SinkDimension(() if channels is None else channels)  # type: ignore[arg-type]
    if channels is not None:
        raise ValueError("channels belong to the criterion named 'sink_dimension' only")
    if criterion == MassiveActivation.name:
        return MassiveActivation()
    if isinstance(criterion, str) or not callable(criterion):
        raise ValueError(
            f"unknown criterion {criterion!r}: use '{MassiveActivation.name}', '{SinkDimension.name}' or an object"
        )
    return criterion
