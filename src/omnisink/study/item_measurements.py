"""The measurements of one item, from one recorded pass: the facts that several questions share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omnisink.maths.layers import is_detection_layer
from omnisink.methods.criteria import Criterion, MassiveActivation, Positions, SinkDimension
from omnisink.methods.measure import record
from omnisink.methods.measurements import Recording
from omnisink.methods.measurements_views import ON_SINKS
from omnisink.methods.sinkmap import SinkMap
from omnisink.study.item_runner import ItemRunner

#: Name of the set of tokens that are a sink at one layer at least.
EVER = "sinks of any layer"


@dataclass
class ItemMeasurements:
    """An item with its recording.

    Attributes
    ----------
    runner : ItemRunner
        The item in front of the model.
    dimension : SinkDimension or None
        The second criterion, with the channels that calibration found.
    """

    runner: ItemRunner
    dimension: SinkDimension | None

    @cached_property
    def criteria(self) -> tuple[Criterion, ...]:
        """The criteria that are compared."""
        return (MassiveActivation(),) if self.dimension is None else (MassiveActivation(), self.dimension)

    @cached_property
    def recording(self) -> Recording:
        """Measurements of the baseline, with attention to every modality, to its sinks, and to all sinks."""
        by_modality = self.runner.sets()
        among = {f"{name}{ON_SINKS}": members & self.ever for name, members in by_modality.items()}
        sets = {**by_modality, EVER: self.ever, **among}
        with self.runner.measuring():
            return record(self.runner.loaded, self.runner.inputs, others=self.criteria[1:], sets=sets)

    @cached_property
    def massive(self) -> dict[int, torch.Tensor]:
        """The sinks (1, S) bool of every layer that is examined, found in the first run's residual streams."""
        marks, depth = MassiveActivation(), len(self.runner.anatomy.layers)
        return {
            layer: marks(self.runner.residual(layer)[None], None).cpu()
            for layer in range(depth)
            if is_detection_layer(layer, depth)
        }

    @cached_property
    def ever(self) -> torch.Tensor:
        """The tokens that are a sink at one layer at least, (1, S) bool."""
        return torch.stack(list(self.massive.values())).any(dim=0)

    @property
    def positions(self) -> Positions:
        """The tokens that are a sink at one layer at least, for what acts where they are not massive yet."""
        return Positions(tuple(int(p) for p in self.ever[0].nonzero().flatten()))

    def sinks(self, criterion: int = 0) -> SinkMap:
        """Return what a criterion marks at the layers that are examined: all but the last two."""
        whole = self.recording.sinks(criterion)
        depth = len(self.runner.anatomy.layers)
        kept = [layer for layer in whole.examined if is_detection_layer(layer, depth)]
        masks, sizes = ({k: m[k] for k in kept} for m in (whole.masks, whole.magnitudes))
        return SinkMap(masks, whole.token_mask, whole.criterion, sizes)

    def first_layer(self, criterion: int = 0) -> int | None:
        """Return the first layer at which a criterion marks a token, or None."""
        return min(self.sinks(criterion).layers, default=None)

    def by_layer(self, name: str) -> NDArray[Any]:
        """Return one measurement of the item, (layer, ...)."""
        measured: NDArray[Any] = self.recording[name][0]
        return measured


def plain(values: NDArray[Any]) -> Any:
    """Turn an array into lists of floats that JSON takes: five digits, None for what is not a number."""
    if values.ndim:
        return [plain(v) for v in values]
    return float(f"{values:.5g}") if np.isfinite(values) else None
