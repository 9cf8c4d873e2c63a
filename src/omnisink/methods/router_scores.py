"""The scores that SinkRouter decides by, in steps in which nothing is routed: what its threshold is calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError
from omnisink.maths.routing import anchor_scores
from omnisink.methods.router_trace import RouterRecord
from omnisink.methods.sink_router import SinkRouter


@dataclass(frozen=True)
class RouterScores(SinkRouter):
    """Keep the score of every key/value head in every decode step, and route nothing.

    The model runs as it would without a method. `record.measured["scores"]` has by layer a list of scores (B, K), one
    for each step.
    """

    never: ClassVar[bool] = False

    def attend(self, call: AttentionCall, context: Context) -> None:
        """Score the heads of a step; let all of them attend."""
        anchor = self.kept_anchor(call, context)
        if anchor is not None:
            found = context.record.measured.setdefault("scores", {})
            found.setdefault(call.layer, []).append(anchor_scores(call.query, anchor, is_unit=True))

    def start_record(self, context: Context) -> RouterRecord:
        """Return the record of a prefill; nothing is put to zero, so there is nothing to warn of."""
        record = super().start_record(context)
        assert isinstance(record, RouterRecord)
        record.warns = False
        return record


def threshold_for(scores: Tensor, target: float, total: int) -> tuple[float, float]:
    """Find the threshold above which a share of the scores lies, as near to it as whole numbers of heads allow.

    Parameters
    ----------
    scores : Tensor
        Scores of all heads that may be routed, over steps and prompts, of any shape.
    target : float
        The share of `total` that is to be routed.
    total : int
        All key/value heads of the model in these steps, those that are never routed too.

    Returns
    -------
    float, float
        The threshold, amid the two scores that it divides; and the share that is above it, which differs from the
        target by half a head at most where no two scores are equal.

    Raises
    ------
    OmnisinkError
        If more heads were to be routed than may be.
    """
    ordered = scores.flatten().double().sort(descending=True).values
    wanted = round(target * total)
    if wanted > len(ordered):
        raise OmnisinkError(
            f"a skip ratio of {target:g} cannot be reached: {len(ordered) / total:.3f} of the key/value heads may be "
            "routed, and the others are in layers that are not"
        )
    above = float(ordered[wanted - 1]) if wanted else 1.0
    below = float(ordered[wanted]) if wanted < len(ordered) else -1.01
    threshold = (above + below) / 2
    return threshold, float((ordered > threshold).sum()) / total
