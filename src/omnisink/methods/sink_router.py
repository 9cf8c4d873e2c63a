"""SinkRouter: leave out the attention of heads that look at nothing but the sink, while an answer is generated.

The method in steps (Liu et al.; arXiv 2604.16883):

1. A prefill runs as it would without the method. Of every layer the key of the anchor is kept, which is the first
   real token of each sequence (`head_output`); nothing is ever taken from the cache.
2. In a pass that adds one token, each key/value head of a layer is scored: the mean, over its query heads, of the
   cosine between the query and the anchor's key (`omnisink.maths.routing`).
3. A head whose score is above the threshold is routed: its head outputs are zeros, or the anchor's value, and its keys
   and values are not read. The other heads attend to everything (`attend`).

The decision is made anew for each sequence, layer, key/value head and step. Layers 0 and 1 are never routed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.maths.layers import is_detection_layer
from omnisink.maths.routing import Visible, routed_decode, unit_anchor
from omnisink.methods.block_records import Record
from omnisink.methods.criterion import Criterion
from omnisink.methods.router_keys import anchor_places, reason_to_leave, seen_keys, value_ratio
from omnisink.methods.router_settings import RouterListing, RouterSettings
from omnisink.methods.router_trace import ORIGIN, RouterRecord, RouterTrace
from omnisink.methods.sink_method import SinkMethod

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager

#: With a layer, the keys under which a cache keeps the key and the value of its sequences' anchors.
_KEY, _VALUE = "anchor key", "anchor value"


@dataclass(frozen=True)
class SinkRouter(RouterListing, SinkMethod, RouterSettings):
    """Skip the attention of heads that would look at the sink, in decode steps (Liu et al.; arXiv 2604.16883).

    In a pass that adds one token, a key/value head is not attended with where its query heads point at the key of the
    sink, on average: ``mean_i cos(q_i, k_sink) > threshold``. The prompt is processed as without the method, and the
    cache keeps everything. The threshold belongs to a model: `omnisink tune --method sink-router` finds it.

    Parameters
    ----------
    threshold, surrogate, skip_layers, anchor, fit
        See `omnisink.methods.router_settings.RouterSettings`.
    criterion : Criterion, optional
        What makes a token a sink, for ``anchor="sinks"``. None is `MassiveActivation` with its default thresholds.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range, or there is a criterion beside ``anchor="first"``.
    """

    criterion: Criterion | None = None
    #: No setting here: `skip_layers` says where the method does not act.
    layers: ClassVar[None] = None  # type: ignore[misc]

    watches_steps: ClassVar[bool] = False
    keeps_sinks: ClassVar[bool] = False
    record_type: ClassVar[type[Record]] = RouterRecord
    trace_type: ClassVar[type[RouterTrace]] = RouterTrace

    if TYPE_CHECKING:  # The block gives the trace named above.

        def __call__(  # noqa: D102
            self, model: Any, *prompt: Any, spans: Any = None, **inputs: Any
        ) -> _GeneratorContextManager[RouterTrace, None, None]: ...

    def __post_init__(self) -> None:
        RouterSettings.__post_init__(self)
        SinkMethod.__post_init__(self)
        if self.criterion is not None and self.anchor == "first":
            raise ValueError("a criterion belongs to anchor='sinks': with anchor='first' no sinks are looked for")

    def criterion_settings(self) -> dict[str, Any]:
        """Name and settings of the criterion, where one is asked."""
        return super().criterion_settings() if self.anchor == "sinks" else {}

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers that the model does not have, and a model with none left to route."""
        depth = len(anatomy.layers)
        if outside := [layer for layer in self.skip_layers if layer >= depth and self.skip_layers != (0, 1)]:
            raise OmnisinkError(f"skip_layers names {outside}, but the model has layers 0 to {depth - 1}")
        if not anatomy.attention.keys() - {*self.skip_layers}:
            raise UnsupportedModelError(
                f"{type(anatomy.model).__name__} has attention in layers {sorted(anatomy.attention)}, and skip_layers "
                f"leaves out {list(self.skip_layers)}: nothing is left to route"
            )

    def start_record(self, context: Context) -> Record:
        """Return the record of a prefill, which knows what its trace warns of."""
        record = super().start_record(context)
        assert isinstance(record, RouterRecord)
        record.warns = self.surrogate == "zero" and not self.never
        return record

    @property
    def never(self) -> bool:
        """Whether nothing can be routed: no mean of cosines is above 1."""
        return isinstance(self.threshold, int | float) and self.threshold >= 1

    def begin(self, context: Context) -> None:
        """Keep where the sequences of a prefill begin, and how long they are."""
        now = context.now
        if not now.is_prefill:
            return
        now.state.tensors[ORIGIN] = torch.arange(now.batch, device=now.device)
        extent = torch.tensor([[0.0, now.length]], device=now.device).expand(now.batch, -1)
        if (mask := now.token_mask) is not None:
            now.state.tensors["token mask"] = mask
            extent = torch.stack([mask.int().argmax(dim=1), mask.sum(dim=1)], dim=1).float()
        self._keep("extent", extent, context, 1)
        context.scratch["anchor"] = now.state.tensors["extent"][:, 0].long()

    def chosen(self, layer: int, depth: int) -> bool:
        """Whether sinks are looked for at a layer of a decoder with `depth` layers."""
        return self.anchor == "sinks" and is_detection_layer(layer, depth)

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Find the strongest sink of each sequence in a prefill, where that is the anchor."""
        super().residual_stream(layer, hidden, context)
        if context.now.is_prefill and layer in context.record.sinks:
            context.scratch["anchor"] = anchor_places(
                context.record.sinks[layer],
                context.record.finite.magnitudes[layer],
                context.scratch["anchor"].to(hidden.device),
            )

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Keep the anchor's key and value of a prefill; change nothing."""
        if context.now.is_prefill:
            self._look(call, context)
        return output

    def kept_anchor(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Return the anchors' keys (B, K, D), divided by their lengths, for a decode step; None where all attend."""
        if context.now.is_prefill or call.query.shape[2] != 1:
            return None
        return context.now.state.tensors.get((_KEY, call.layer))

    def attends_in(self) -> frozenset[str]:
        """Return that it answers decode steps."""
        return frozenset({"steps"})

    def attend(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Attend in a decode step with the heads that are not routed; None where all of them are to attend."""
        now, anchor = context.now, self.kept_anchor(call, context)
        if anchor is None or self.never:
            return None
        visible = self._visible(call, context)
        if visible is None:
            return None
        found = routed_decode(
            call.query,
            call.key,
            call.value,
            anchor,
            self._threshold(call, context),
            visible,
            is_unit=True,
            scaling=call.scaling,
            softcap=call.softcap,
            surrogate_value=now.state.tensors.get((_VALUE, call.layer)),
        )
        context.scratch.setdefault("routed", {})[call.layer] = found.scores, found.routed
        return None if found.output is None else found.output.transpose(1, 2)

    def last_hidden_state(self, hidden: Tensor, context: Context) -> None:
        """See whether what left the decoder is finite, and report what the pass routed."""
        super().last_hidden_state(hidden, context)
        now = context.now
        if now.is_prefill:
            context.record.refuse_if_nothing_is_left(context.anatomy)
        elif now.length == 1:
            context.record.add_step(now, context.scratch.get("routed", {}))

    def _look(self, call: AttentionCall, context: Context) -> None:
        """Keep a layer's anchors, or say why it is left alone."""
        record, layer = context.record, call.layer
        record.groups[layer] = call.key.shape[1]
        if layer in self.skip_layers or self.never:
            return
        if (reason := reason_to_leave(call, context.anatomy)) is not None:
            record.skipped[layer] = reason
            return
        places = context.scratch["anchor"].to(call.key.device)
        index = places[:, None, None, None]
        key, value = (
            kept.detach().gather(2, index.expand(-1, kept.shape[1], 1, kept.shape[3]))[:, :, 0].float()
            for kept in (call.key, call.value)
        )
        room = len(context.anatomy.layers)
        self._keep((_KEY, layer), unit_anchor(key), context, room)
        if self.surrogate == "value":
            self._keep((_VALUE, layer), value, context, room)
        token_mask = context.now.token_mask_on(call.value.device)
        record.value_ratios[layer] = value_ratio(call.value[:, :, : context.now.length].detach(), value, token_mask)

    def _keep(self, key: Any, tensor: Tensor, context: Context, room: int) -> None:
        """Keep a float32 tensor with the cache: where a graph that was made before reads it, if there may be one."""
        place = context.now.state.place(key, tuple(tensor.shape), tensor.device, room)
        context.now.state.tensors[key] = tensor if place is None else place.copy_(tensor)

    def _visible(self, call: AttentionCall, context: Context) -> Visible | None:
        """Return what the step sees, worked out once for all layers that are given the same mask."""
        known = context.scratch.get("visible")
        if known is None or known[0] is not call.mask or known[1] != call.key.shape[2]:
            known = call.mask, call.key.shape[2], seen_keys(call, context.now)
            context.scratch["visible"] = known
        found: Visible | None = known[2]
        if found is None:
            context.record.skipped[call.layer] = "its mask differs between heads, so that all of them attend"
        elif found.starts.device != call.query.device:
            return found.to(call.query.device)
        return found

    def _threshold(self, call: AttentionCall, context: Context) -> float | Tensor:
        """Return the threshold of the step: of all sequences, or of each by its length."""
        if isinstance(self.threshold, int | float):
            return self.threshold
        if (known := context.scratch.get("threshold")) is None:
            state = context.now.state
            curve, held = self.curve, context.now.held
            assert curve is not None
            since = (call.key.shape[2] if held is None else held) - state.length
            known = context.scratch["threshold"] = curve.on(state.tensors["extent"][:, 1] + since)
        found: Tensor = known
        return found
