"""What methods that act on sinks share: marking them at every layer of a prefill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import Context
from omnisink.errors import OmnisinkError
from omnisink.maths.bounds import whole_numbers
from omnisink.maths.layers import is_detection_layer
from omnisink.maths.magnitude import token_magnitude
from omnisink.methods.base import Method
from omnisink.methods.criterion import Criterion, MassiveActivation, describe
from omnisink.methods.marking import mark_sinks
from omnisink.methods.prompt_sinks import SINKS, PromptSinks


@dataclass(frozen=True)
class SinkMethod(PromptSinks, Method):
    """A method that marks the sinks of each layer as the residual stream enters it.

    Parameters
    ----------
    criterion : Criterion
        What makes a token a sink.
    layers : tuple of int, optional
        Layers to look at and act on; None is all but the last two, in which activations of every token grow.
    """

    criterion: Criterion | None = field(default_factory=MassiveActivation)
    layers: tuple[int, ...] | None = None

    #: The shared tests of the package run every one of its methods so.
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding on both sides"
    #: Whether `prompt_sinks` (of `PromptSinks`) is asked for: the sinks are then kept with the cache.
    keeps_sinks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.criterion is not None and not callable(self.criterion):
            raise ValueError(f"criterion must be an object such as SinkDimension((138, 378)), got {self.criterion!r}")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(sorted(set(whole_numbers("layers", self.layers)))))

    @property
    def sink_criterion(self) -> Criterion:
        """What makes a token a sink: `criterion`, or what stands for it where that is None."""
        return MassiveActivation() if self.criterion is None else self.criterion

    def criterion_settings(self) -> dict[str, Any]:
        """Name and settings of the criterion."""
        return describe(self.sink_criterion)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers that the model does not have."""
        depth = len(anatomy.layers)
        if outside := [layer for layer in self.layers or () if not 0 <= layer < depth]:
            raise OmnisinkError(f"layers names {outside}, but the model has layers 0 to {depth - 1}")

    def chosen(self, layer: int, depth: int) -> bool:
        """Whether the method looks at a layer of a decoder with `depth` layers."""
        return is_detection_layer(layer, depth) if self.layers is None else layer in self.layers

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Mark the sinks of a prefill."""
        if context.now.is_prefill and self.chosen(layer, len(context.anatomy.layers)):
            marked, magnitude = self.find_sinks(layer, hidden, context)
            context.record.sinks[layer], context.record.finite.magnitudes[layer] = marked, magnitude
            if self.keeps_sinks:
                context.now.state.tensors[SINKS, layer] = marked

    def find_sinks(self, layer: int, hidden: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return the sinks of a prompt, (B, S) bool, and the largest activation of every token, (B, S) float32."""
        magnitude = token_magnitude(hidden.detach())
        token_mask = context.now.token_mask_on(hidden.device)
        return mark_sinks(self.sink_criterion, hidden, token_mask, magnitude), magnitude
