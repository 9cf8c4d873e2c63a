"""OutRo: rotate head outputs toward the sink's value, and let the sink see the whole prompt once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.interface import AttentionCall
from omnisink.errors import OmnisinkError
from omnisink.maths.host import is_eager_cpu
from omnisink.maths.outro_settings import OutRoSettings
from omnisink.maths.prompts import Prompts
from omnisink.maths.rotation import Rotation, rotate
from omnisink.methods.base import Context, Method
from omnisink.methods.criteria import MassiveActivation, describe
from omnisink.methods.outro_space import OutRoSpace
from omnisink.methods.presets import Preset
from omnisink.methods.space import SearchSpace

#: Key under which a cache keeps which prompt of the prefill each of its sequences comes from.
_ORIGIN = "origin"


@dataclass(frozen=True)
class OutRo(OutRoSettings, Method):
    """Output rotation and mask relaxation around attention sinks (Yoo, Jang, Chung; arXiv 2603.14337).

    In a prefill every layer finds its sinks, takes their mean value vector, lets sinks that have not been relaxed yet
    attend to the whole prompt (on relaxation layers), and rotates the head outputs of all other tokens toward that
    vector. Later passes rotate with the vector of the prefill and find no new sinks.

    Parameters
    ----------
    gamma, tau, rotate, relax, decode, min_activation, median_ratio, detect_layers, relax_layers, max_relaxed
        See `omnisink.maths.outro_settings.OutRoSettings`, which a server's settings share.

    Raises
    ------
    ValueError
        If a setting is not a number of its range.
    """

    watches_steps: ClassVar[bool] = False

    source: ClassVar[str] = "Yoo, Jang, Chung (arXiv 2603.14337)"
    tested: ClassVar[str] = (
        "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams; torch.compile; "
        "every family of the support table; vLLM on CPUs"
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "rotate": Preset("Rotate only, without mask relaxation.", {"relax": False}),
        "relax": Preset("Relax the mask only, without rotation.", {"rotate": False}),
        "away": Preset("Rotate away from the sink's value instead of toward it.", negate=("gamma",)),
        "random": Preset(
            "Rotate by the same angles toward random directions: a control.",
            {"direction": "random"},
            home="omnisink.methods.controls:OutRoControl",
        ),
    }

    search_space: ClassVar[SearchSpace] = OutRoSpace()

    @property
    def criterion(self) -> MassiveActivation:
        """The criterion with this method's thresholds."""
        return MassiveActivation(self.min_activation, self.median_ratio)

    def criterion_settings(self) -> dict[str, Any]:
        """Name and thresholds of the criterion."""
        return describe(self.criterion)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers that the model does not have."""
        try:
            self.check_depth(len(anatomy.layers))
        except ValueError as error:
            raise OmnisinkError(str(error)) from None

    def begin(self, context: Context) -> None:
        """Make what the layers of a prefill share; count the tokens that a later pass is going to rotate."""
        now = context.now
        if now.is_prefill:
            now.state.tensors[_ORIGIN] = torch.arange(now.batch, device=now.device)
            context.scratch["prompts"] = Prompts(now.batch, now.length, now.token_mask, len(context.anatomy.layers))
        if self.decode:
            context.record.count(now, now.state.tensors[_ORIGIN])

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Find the layer's sinks in a prefill."""
        if context.now.is_prefill and self.detects(layer, len(context.anatomy.layers)):
            prompts: Prompts = context.scratch["prompts"]
            context.record.sinks[layer], context.record.finite.magnitudes[layer] = prompts.find_sinks(
                layer, hidden, min_activation=self.min_activation, median_ratio=self.median_ratio
            )

    def idle(self, layer: int, context: Context) -> bool:
        """Leave out the layers of a prefill in which no sequence has a sink: `head_output` returns what it is given.

        A subclass whose `head_output` does more there has to say so here.
        """
        sinks = context.record.sinks.get(layer)
        return context.now.is_prefill and (sinks is None or not bool(sinks.any()))

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Relax and rotate in a prefill, rotate in later passes."""
        if context.now.is_prefill:
            return self._prefill(call, output, context)
        direction = context.now.state.tensors.get(call.layer)
        if direction is None or not self.decode:
            return output
        return self._rotate(call, output, direction, self._padding(context, output), context)

    def step(self, context: Context) -> Mapping[int, Callable[[Tensor], Tensor]] | None:
        """Rotate with the vectors of the prefill; a subclass that does more is asked at every layer."""
        kind, state = type(self), context.now.state
        if kind.head_output is not OutRo.head_output or kind._rotate is not OutRo._rotate:
            return None
        if state.prepared is None:
            state.prepared = {
                layer: Rotation(direction, gamma=self.gamma, tau=self.tau)
                for layer, direction in state.tensors.items()
                if isinstance(layer, int) and self.decode
            }
        prepared: dict[int, Rotation] = state.prepared
        return prepared

    def _prefill(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        sinks = context.record.sinks.get(call.layer)
        if sinks is None or (is_eager_cpu(sinks) and not bool(sinks.any())):
            return output
        if sinks.device != output.device:
            sinks = sinks.to(output.device)
        prompts: Prompts = context.scratch["prompts"]
        if self.relax and self.relaxes(call.layer, len(context.anatomy.layers)):
            output = self._relax(call, output, sinks, prompts, context)
        if self.rotate and self.gamma != 0:
            heads, width = output.shape[2:]
            room = 1 if is_eager_cpu(output) else len(context.anatomy.layers)
            place = context.now.state.place(call.layer, (context.now.batch, heads, width), output.device, room)
            direction = prompts.freeze_and_point(sinks, call.value, heads, place)
            output = self._rotate(call, output, direction, prompts.frozen, context)
            context.now.state.tensors[call.layer] = direction
            context.record.rotated.append(call.layer)
        return output

    def _relax(self, call: AttentionCall, output: Tensor, sinks: Tensor, prompts: Prompts, context: Context) -> Tensor:
        """Replace the rows of sinks that have not been relaxed yet."""
        if call.window is not None:
            context.record.windows[call.layer] = call.window
        output, too_many = prompts.relax(
            call.layer,
            sinks,
            output,
            call.query,
            call.key,
            call.value,
            window=call.window,
            most=self.max_relaxed,
            scaling=call.scaling,
            softcap=call.options.get("softcap"),
            learned_sink=call.options.get("s_aux", call.options.get("sinks")),
        )
        context.record.relaxed_at = prompts.relaxed_at
        if too_many is not None:
            context.record.defer_check(too_many, self._too_many(call.layer))
        return output

    def _rotate(
        self, call: AttentionCall, output: Tensor, direction: Tensor, frozen: Tensor | None, context: Context
    ) -> Tensor:
        """Turn the head outputs toward the sink's value (B, H, D); controls turn them otherwise."""
        prompts: Prompts | None = context.scratch.get("prompts")
        if prompts is not None and frozen is prompts.frozen:
            return prompts.rotate(output, direction, gamma=self.gamma, tau=self.tau)
        return rotate(output, direction, gamma=self.gamma, tau=self.tau, frozen=frozen)

    def _padding(self, context: Context, output: Tensor) -> Tensor | None:
        token_mask = context.now.token_mask_on(output.device)
        return None if token_mask is None else ~token_mask

    def _too_many(self, layer: int) -> OmnisinkError:
        return OmnisinkError(
            f"layer {layer} has more than {self.max_relaxed} sinks to relax in one sequence, so some were not: "
            "raise max_relaxed, or check the thresholds"
        )
