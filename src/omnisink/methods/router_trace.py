"""What SinkRouter routed: what it keeps of every step, and how its user reads it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.passes import Pass
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.methods.block_records import Record
from omnisink.methods.trace import Trace

if TYPE_CHECKING:
    from torch import nn

#: Key under which a cache keeps which prompt of the prefill each of its sequences comes from.
ORIGIN = "origin"
#: From this on the anchor's value is too long to be put to zero: half of the median length of the values.
LONG_VALUE = 0.5


class SurrogateWarning(UserWarning):
    """Routed heads are put to zero on a model whose sink has a value that is not small."""


@dataclass(frozen=True)
class Step:
    """What one decode step routed.

    Attributes
    ----------
    layers : tuple of int
        The layers that were scored.
    origin : Tensor
        (B',) int64, from which prompt of the prefill each of its sequences comes.
    scores, routed : Tensor
        (layers, B') float32, the mean score of the key/value heads of a layer, and how many of them were routed.
    """

    layers: tuple[int, ...]
    origin: Tensor
    scores: Tensor
    routed: Tensor


@dataclass
class RouterRecord(Record):
    """What SinkRouter did in the steps that continued one prefill.

    Attributes
    ----------
    groups : dict of int to int
        Key/value heads of every layer with attention.
    value_ratios : dict of int to Tensor
        (B, K) float32 for every layer that may be routed: the length of the anchor's value as a multiple of the median
        length of the values.
    steps : list of Step
        What was routed, step by step.
    unseen : bool
        Whether a graph made steps of which nothing is known.
    warns : bool
        Whether routed heads are put to zero, so that long values are to be warned of.
    """

    groups: dict[int, int] = field(default_factory=dict)
    value_ratios: dict[int, Tensor] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    unseen: bool = False
    warns: bool = False

    def refuse_if_nothing_is_left(self, anatomy: Anatomy) -> None:
        """Refuse a model none of whose layers can be routed."""
        reasons = [why for layer, why in sorted(self.skipped.items()) if layer in self.groups]
        if reasons and not self.value_ratios:
            raise UnsupportedModelError(
                f"no layer of {type(anatomy.model).__name__} can be routed by SinkRouter. The first: {reasons[0]}"
            )

    def add_step(self, now: Pass, found: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        """Take what a step routed, by layer: scores (B', K) float32 and whether each head was routed (B', K) bool."""
        if torch.compiler.is_compiling() or (now.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            self.unseen = True
            return
        origin = now.state.tensors[ORIGIN]
        scores, routed = ([one[i].to(now.device) for one in found.values()] for i in (0, 1))
        if len({one.shape for one in scores}) > 1:  # Layers with numbers of heads of their own.
            mean, count = (torch.stack([one.mean(1) for one in scores]), torch.stack([one.sum(1) for one in routed]))
        elif scores:
            mean, count = torch.stack(scores).mean(dim=2), torch.stack(routed).sum(dim=2)
        else:
            mean = count = torch.zeros(0, len(origin), device=now.device)
        self.steps.append(Step(tuple(found), origin, mean, count))


class RouterTrace(Trace):
    """What SinkRouter did in the steps after the last prefill of its block.

    Shares are of all key/value heads of all layers with attention; those that are never routed count as well.
    """

    def __init__(self, criterion: dict[str, Any], model: nn.Module | None = None) -> None:
        super().__init__(criterion, model)
        self._warned = False

    @property
    def record(self) -> Any:
        """The raw record of the last prefill, a `RouterRecord`."""
        return super().record

    @property
    def skip_ratio(self) -> float | None:
        """Share of the key/value heads that were routed, over all steps and sequences; None where no step was made.

        Raises
        ------
        OmnisinkError
            If a graph has made steps of which nothing is known.
        """
        shares = [share for share in self.skip_ratios_of(None) if share is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def skip_ratios(self) -> dict[int, float]:
        """Share of the key/value heads of every layer that was scored, over all steps and sequences."""
        routed, seen = self._by_layer("routed")
        groups = self.record.groups
        return {layer: routed[layer] / (seen[layer] * groups[layer]) for layer in sorted(seen)}

    @property
    def scores(self) -> dict[int, float]:
        """Mean score of the key/value heads of every layer that was scored, over all steps and sequences."""
        total, seen = self._by_layer("scores")
        return {layer: total[layer] / seen[layer] for layer in sorted(seen)}

    @property
    def value_ratios(self) -> dict[int, float]:
        """Length of the anchor's value as a multiple of the median length of the values, by layer.

        It is the mean over sequences and key/value heads. Where it is small, zeros are near to what a head gives that
        looks at the anchor.
        """
        return {layer: float(ratio.mean()) for layer, ratio in sorted(self.record.value_ratios.items())}

    def skip_ratios_of(self, steps: Sequence[int] | None) -> list[float | None]:
        """Return the share of key/value heads that were routed for every prompt.

        Parameters
        ----------
        steps : sequence of int or None
            How many steps of each prompt count, from the first; None is all. In a batch the sequences that have come
            to their end go on until all have.

        Returns
        -------
        list of float or None
            None where no step of a prompt counts.
        """
        record = self._known()
        groups = sum(record.groups.values())
        routed, seen = [0.0] * record.batch, [0] * record.batch
        for number, step in enumerate(record.steps):
            for prompt, count in zip(step.origin.tolist(), step.routed.sum(dim=0).tolist(), strict=True):
                if steps is None or number < steps[prompt]:
                    routed[prompt] += count
                    seen[prompt] += 1
        return [count / (n * groups) if n and groups else None for count, n in zip(routed, seen, strict=True)]

    def changes(self) -> dict[str, Any]:
        """Return `skip_ratio`, and by layer `skip_ratios`, `scores` and `value_ratios`."""
        names = ("skip_ratio", "skip_ratios", "scores", "value_ratios")
        return {name: getattr(self, name) for name in names}

    def raise_deferred(self) -> None:
        """Raise what the block left to be checked, and warn once where zeros stand for values that are not small."""
        super().raise_deferred()
        record = self._record
        if self._warned or record is None or not record.warns or not record.value_ratios:
            return
        ratios = {layer: float(ratio.mean()) for layer, ratio in record.value_ratios.items()}
        if long := {layer: ratio for layer, ratio in ratios.items() if ratio > LONG_VALUE}:
            self._warned = True
            worst = max(long, key=long.__getitem__)
            warnings.warn(
                f"SinkRouter puts routed heads to zero, but at {len(long)} of {len(ratios)} layers the value of the "
                f"sink is longer than {LONG_VALUE:g} times the median value (layer {worst}: {long[worst]:.2g} times). "
                "surrogate='value' gives them the sink's value instead",
                SurrogateWarning,
                stacklevel=2,
            )

    def _known(self) -> RouterRecord:
        record: RouterRecord = self.record
        if record.unseen:
            raise OmnisinkError(
                "what was routed is not known: the steps ran in a compiled or captured graph. Run them without one to "
                "count"
            )
        return record

    def _by_layer(self, name: str) -> tuple[dict[int, float], dict[int, int]]:
        """Return a sum over all steps and sequences for every layer, and over how many it is."""
        total: dict[int, float] = {}
        seen: dict[int, int] = {}
        for step in self._known().steps:
            for layer, row in zip(step.layers, getattr(step, name).sum(dim=1).tolist(), strict=True):
                total[layer] = total.get(layer, 0.0) + row
                seen[layer] = seen.get(layer, 0) + len(step.origin)
        return total, seen
