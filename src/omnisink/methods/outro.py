"""OutRo: rotate head outputs toward the sink's value, and let the sink see the whole prompt once.

The method in steps, with the symbols of the paper (Yoo, Jang, Chung; arXiv 2603.14337). A decoder of L layers gets a
prompt of S tokens. Layer l receives the residual stream h (S, d); its attention has queries q, keys k, values v and
head outputs o (S, H, D), which stand before the output projection. In a prefill, layer by layer:

1. Find the sinks (`residual_stream`). Token t is one iff ``m_t >= max(100, 1000 * median |h|)`` with the massive
   activation ``m_t = max_i |h[t, i]|``; `criterion` puts another rule in its place. Not in the last two layers.
2. Run the model's own attention; it gives o.
3. Relax the mask (`_relax`), at layers with ``l % max(1, L // 7) == 0``: the row of o of a sink that has not been
   relaxed before becomes attention over all keys of the prompt, later ones included.
4. Take the sink's value (`_prefill`): ``v_sink``, the mean of the values v of the layer's sinks, for each head.
5. Rotate (`_rotate`) the head output o of every token that is no sink, of this or an earlier layer, toward it:
   ``o' = o + gate * gamma * (|o . v_sink| / |v_sink|^2) * v_sink`` with ``gate = tanh(relu(cos(o, v_sink)) / tau)``,
   then scale o' to the length of o.

A generated token (`step`) finds no new sinks: its head outputs are rotated as in 5, with the prefill's ``v_sink``.
Every sequence of a batch has its own sinks, median and ``v_sink``, and padding takes no part in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.passes import Pass
from omnisink.errors import OmnisinkError
from omnisink.maths.host import is_eager_cpu
from omnisink.maths.outro_settings import OutRoSettings
from omnisink.maths.prompts import Prompts
from omnisink.maths.rotation import Rotation, rotate
from omnisink.methods.block_records import Record
from omnisink.methods.criterion import Criterion, MassiveActivation
from omnisink.methods.outro_listing import OutRoListing
from omnisink.methods.outro_trace import OutRoTrace
from omnisink.methods.sink_method import SinkMethod

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager

#: Key under which a cache keeps which prompt of the prefill each of its sequences comes from.
_ORIGIN = "origin"


@dataclass
class OutRoRecord(Record):
    """What OutRo did in one prefill and in the passes that continued it.

    Attributes
    ----------
    relaxed_at : Tensor or None
        (B, S) int32, one plus the layer at which the row of a token was relaxed, and 0 where it was not.
    rotated : list of int
        Layers whose head outputs were rotated in the prefill where they have a sink, in order.
    later : list of [Tensor, int or Tensor]
        Tokens rotated after the prefill at every layer where their prompt has a sink: from which prompt each sequence
        of a pass comes, (B',) int64, and the tokens of every one of them, or of each, (B',).
    held : Tensor or None
        The cache's own count of its tokens. It also knows of passes that a captured or compiled graph made.
    unseen : bool
        Whether a compiled graph made passes that nothing has counted.
    windows : dict of int to int
        The window of layers that have one, where relaxation was due.
    """

    relaxed_at: Tensor | None = None
    rotated: list[int] = field(default_factory=list)
    later: list[list[Any]] = field(default_factory=list)
    held: Tensor | None = None
    unseen: bool = False
    windows: dict[int, int] = field(default_factory=dict)

    def count(self, now: Pass, origin: Tensor) -> None:
        """Count the tokens of a pass, on the host: nothing that outlives the pass is written on the device.

        `origin`, (B',) int64, says from which prompt of the prefill each of its sequences comes.
        """
        if now.held is not None:
            self.held = now.held
        if now.is_prefill:
            self.later.append([origin, 0])
        elif torch.compiler.is_compiling():
            self.unseen |= now.held is None
        elif now.token_mask is not None:
            self.later.append([origin, now.token_mask.sum(dim=1)])
        elif self.later[-1][0] is origin and isinstance(self.later[-1][1], int):
            self.later[-1][1] += now.length
        else:
            self.later.append([origin, now.length])


@dataclass(frozen=True)
class OutRo(OutRoListing, SinkMethod, OutRoSettings):
    """Output rotation and mask relaxation around attention sinks (Yoo, Jang, Chung; arXiv 2603.14337).

    In a prefill every layer finds its sinks, takes their mean value vector, lets sinks that have not been relaxed yet
    attend to the whole prompt (on relaxation layers), and rotates the head outputs of all other tokens toward that
    vector. Later passes rotate with the vector of the prefill and find no new sinks.

    Parameters
    ----------
    gamma, tau, rotate, relax, decode, min_activation, median_ratio, detect_layers, relax_layers, max_relaxed
        See `omnisink.maths.outro_settings.OutRoSettings`, which a server's settings share.
    criterion : Criterion, optional
        What makes a token a sink. None is `MassiveActivation` with `min_activation` and `median_ratio`.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range, or thresholds are given beside a criterion.
    """

    criterion: Criterion | None = None
    #: No setting here: `detect_layers` says which layers look for sinks, as in a server.
    layers: ClassVar[None] = None  # type: ignore[misc]

    watches_steps: ClassVar[bool] = False
    in_steps: ClassVar[str] = "by sequence"
    keeps_sinks: ClassVar[bool] = False
    record_type: ClassVar[type[Record]] = OutRoRecord
    trace_type: ClassVar[type[OutRoTrace]] = OutRoTrace

    if TYPE_CHECKING:  # The block gives the trace named above.

        def __call__(  # noqa: D102
            self, model: Any, *prompt: Any, spans: Any = None, **inputs: Any
        ) -> _GeneratorContextManager[OutRoTrace, None, None]: ...

    def __post_init__(self) -> None:
        OutRoSettings.__post_init__(self)
        SinkMethod.__post_init__(self)
        thresholds = self.min_activation, self.median_ratio
        if self.criterion is not None and thresholds != (OutRoSettings.min_activation, OutRoSettings.median_ratio):
            raise ValueError("min_activation and median_ratio belong to the default criterion: give them to that")

    @property
    def sink_criterion(self) -> Criterion:
        """The criterion that was given, or massive activation with this method's thresholds."""
        return MassiveActivation(self.min_activation, self.median_ratio) if self.criterion is None else self.criterion

    def chosen(self, layer: int, depth: int) -> bool:
        """Whether a layer of a decoder with `depth` layers looks for sinks."""
        return self.detects(layer, depth)

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

    def find_sinks(self, layer: int, hidden: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Find the layer's sinks in a prefill; for the default criterion there are kernels."""
        criterion = self.sink_criterion
        if type(criterion) is not MassiveActivation:
            return super().find_sinks(layer, hidden, context)
        prompts: Prompts = context.scratch["prompts"]
        return prompts.find_sinks(
            layer, hidden, min_activation=criterion.min_activation, median_ratio=criterion.median_ratio
        )

    def can_skip_layer(self, layer: int, context: Context) -> bool:
        """Leave out the layers of a prefill in which no sequence has a sink: `head_output` returns what it is given.

        A subclass whose `head_output` does more there has to say so here.
        """
        sinks = context.record.sinks.get(layer)
        return context.now.is_prefill and (sinks is None or not bool(sinks.any()))

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Relax and rotate in a prefill, rotate in later passes."""
        now = context.now
        if now.is_prefill:
            return self._prefill(call, output, context)
        direction = now.state.tensors.get(call.layer)
        if direction is None or not self.decode:
            return output
        token_mask = now.token_mask_on(output.device)
        return self._rotate(call, output, direction, None if token_mask is None else ~token_mask, context)

    def step(self, context: Context) -> Mapping[int, Callable[[Tensor], Tensor]] | None:
        """Rotate with the vectors of the prefill; a subclass that does more is asked at every layer."""
        kind, state = type(self), context.now.state
        if any(getattr(kind, name) is not getattr(OutRo, name) for name in _AT_EVERY_LAYER):
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
            softcap=call.softcap,
            learned_sink=call.learned_sink,
        )
        context.record.relaxed_at = prompts.relaxed_at
        if too_many is not None:
            context.record.defer_check(
                too_many,
                OmnisinkError(
                    f"layer {call.layer} has more than {self.max_relaxed} sinks to relax in one sequence, so some "
                    "were not: raise max_relaxed, or check the thresholds"
                ),
            )
        return output

    def _rotate(
        self, call: AttentionCall, output: Tensor, direction: Tensor, frozen: Tensor | None, context: Context
    ) -> Tensor:
        """Turn the head outputs toward the sink's value (B, H, D); controls turn them otherwise."""
        prompts: Prompts | None = context.scratch.get("prompts")
        if prompts is not None and frozen is prompts.frozen:
            return prompts.rotate(output, direction, gamma=self.gamma, tau=self.tau)
        return rotate(output, direction, gamma=self.gamma, tau=self.tau, frozen=frozen)


#: A subclass with one of these of its own has to be asked at every layer of a decode step.
_AT_EVERY_LAYER = ("attention_input", "attend", "head_output", "_rotate")
