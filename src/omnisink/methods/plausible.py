"""The control that every contrastive method needs: its cut of implausible tokens, and no contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from omnisink.decoder.context import Context
from omnisink.methods.contrast import Branch, Contrast, keep_plausible


@dataclass(frozen=True)
class PlausibleTokens(Contrast):
    """Choose among plausible tokens, and contrast nothing: a control of contrastive decoding (arXiv 2504.10020).

    Under greedy decoding it changes nothing, as the best token is always plausible; under sampling it makes the choice
    nearly greedy. It runs one pass.

    Parameters
    ----------
    alpha : float
        Must be 0.
    beta : float
        See `Contrast`.

    Raises
    ------
    ValueError
        If `alpha` is not 0, or `beta` is not between 0 and 1.
    """

    alpha: float = 0.0

    source: ClassVar[str] = "Yin, Si, Wang (arXiv 2504.10020), who ask for this control"
    derived: ClassVar[str] = "the name"
    cost: ClassVar[str] = "one comparison of logits"
    tested: ClassVar[str] = "dynamic caches; greedy decoding"
    unsearchable: ClassVar[str] = (
        "makes answers surer whether they are right or not, which a search would take for a gain: give it the beta of "
        "the method that it is compared with"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha != 0:
            raise ValueError(f"alpha must be 0, as there is nothing to contrast with, got {self.alpha}")

    def branches(self, context: Context) -> Sequence[Branch]:
        """Return none."""
        return []

    def combine(self, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Leave out what is not plausible."""
        return keep_plausible(first, first, self.beta)
