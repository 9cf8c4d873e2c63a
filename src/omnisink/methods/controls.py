"""Controls of OutRo: the same tokens, the same gate and the same angle, but another direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.maths.rotation import sink_direction
from omnisink.maths.same_angle import rotate_by_same_angle
from omnisink.methods.outro import OutRo

DIRECTIONS = ("sink", "opposite", "random", "layer")

#: With a layer, the key under which a cache keeps the directions to turn toward.
_TOWARD = "toward"


@dataclass(frozen=True)
class OutRoControl(OutRo):
    """OutRo whose rotation goes toward something of one's choice, and that measures how far it turns.

    Parameters
    ----------
    direction : {"sink", "opposite", "random", "layer"}
        ``"sink"`` is OutRo itself. ``"opposite"`` turns the other way: away from the sink's value where gamma is
        positive, toward it where gamma is negative. ``"random"`` turns toward a random direction, another one for each
        layer and head. ``"layer"`` turns toward the value that the same tokens have one layer earlier. In all cases
        every head output is turned by the angle by which the sink's own value would turn it with this gamma.
    seed : int
        Of the random directions.
    gamma, tau, rotate, relax, decode, min_activation, median_ratio, detect_layers, relax_layers, max_relaxed
        See `OutRo`.

    Raises
    ------
    ValueError
        If `direction` is none of the four, or is ``"layer"`` where gamma is negative.
    """

    direction: str = "sink"
    seed: int = 0

    source: ClassVar[str] = "omnisink: a control of OutRo"
    licence: ClassVar[str] = ""
    derived: ClassVar[str] = "all of it"
    cost: ClassVar[str] = "as OutRo, and the angle of every rotation"
    measured: ClassVar[str] = (
        "SmolOmni at OutRo's angles: random directions change the loss by +0.004 nats (−0.002 to +0.013), the sink's "
        "by +0.026 (−0.004 to +0.062)"
    )
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding on both sides"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {self.direction!r}")
        if self.gamma < 0 and self.direction == "layer":
            raise ValueError('gamma must not be negative with direction="layer", which turns toward a value only')

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Leave out the layers without a sink, unless the values of every layer have to be remembered."""
        return self.direction != "layer" and super().can_skip_layer(layer, context)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Relax and rotate, and remember this layer's values for the next."""
        changed = super().head_output(call, output, context)
        if context.now.is_prefill and self.direction == "layer":
            context.scratch["value"] = call.prompt_values
        return changed

    def _rotate(
        self, call: AttentionCall, output: Tensor, direction: Tensor, frozen: Tensor | None, context: Context
    ) -> Tensor:
        before = output.float().clone()
        if self.direction == "sink":
            turned = super()._rotate(call, output, direction, frozen, context)
        else:
            if context.now.is_prefill:
                context.now.state.tensors[_TOWARD, call.layer] = self._toward(call, direction, context)
            toward = context.now.state.tensors[_TOWARD, call.layer]
            turned = rotate_by_same_angle(output, direction, toward, gamma=self.gamma, tau=self.tau, frozen=frozen)
        if context.now.is_prefill:
            context.record.measured.setdefault("angle", {})[call.layer] = _mean_angle(before, turned, frozen)
        return turned

    def _toward(self, call: AttentionCall, direction: Tensor, context: Context) -> Tensor:
        """Return (B, H, D) unit vectors. Away from a random one, where gamma is negative, is as random as toward."""
        if self.direction == "opposite":
            return -direction
        if self.direction == "random":
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + call.layer)
            drawn = torch.randn(direction.shape[1:], generator=generator).to(direction.device)
            return torch.nn.functional.normalize(drawn, dim=-1).expand_as(direction)
        before = context.scratch.get("value")
        if before is None or before.shape != call.prompt_values.shape:
            context.record.skipped[call.layer] = "no earlier layer with values of this shape to turn toward"
            return torch.zeros_like(direction)
        sinks = context.record.sinks[call.layer].to(before.device)
        return sink_direction(before, sinks, direction.shape[1]).to(direction.device)


def _mean_angle(before: Tensor, after: Tensor, frozen: Tensor | None) -> Tensor:
    """Mean angle in degrees between head outputs (B, S, H, D) before and after, over tokens that may turn, (B,)."""
    a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (before, after.float()))
    # Not by the cosine, which is one to the last bit for every angle under a fiftieth of a degree.
    across, along = torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1)
    angle = torch.rad2deg(2 * torch.atan2(across, along)).mean(dim=-1)
    free = torch.ones_like(angle, dtype=torch.bool) if frozen is None else ~frozen
    return angle.masked_fill(~free, 0.0).sum(dim=1) / free.sum(dim=1).clamp(min=1)
