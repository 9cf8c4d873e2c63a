"""What the runs of one prompt have in common: computed by the first that gets to it, and answered in the others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.interface import LISTENERS
from omnisink.decoder.replay.calls import Call, RecordedCall, copied, same

#: What the text model collects from inside its layers; a layer that is not run has nothing to give.
COLLECTED = ("output_attentions", "output_router_logits")


def collected(anatomy: Anatomy, call: Call) -> list[str]:
    """Return what a call of the text model asks its layers for, beside the residual stream."""
    config = getattr(anatomy.text_model, "config", None)
    return [name for name in COLLECTED if call.kwargs.get(name, getattr(config, name, False))]


@dataclass
class _Pass:
    """A pass, which has something in common with earlier ones until it has `changed`."""

    in_layers: bool = False
    changed: bool = False
    seen: set[int] = field(default_factory=set)


class Sharing:
    """Towers and layers of the runs of one prompt.

    A layer is recorded by the first run that comes to it unchanged, and answered in every later one that does. So it
    does not matter which run is the first: each goes on where the ones before it parted.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder.
    layers : int, optional
        Number of layers, from the first, that are shared; None is all, 0 the towers only.

    Attributes
    ----------
    keeps : bool
        Whether what is not recorded yet is: the last run has nobody to record for.
    """

    def __init__(self, anatomy: Anatomy, layers: int | None = None) -> None:
        self._anatomy = anatomy
        self._depth = len(anatomy.layers) if layers is None else layers
        self._prompt: list[Tensor] | None = None
        self._towers: defaultdict[nn.Module, list[RecordedCall]] = defaultdict(list)
        self._layers: dict[int, RecordedCall] = {}
        self._now: _Pass | None = None
        self._in_tower = self._has_run = False
        self.keeps = True

    def run_pass(self, call: Call) -> Any:
        """Answer a module around the layers: the outermost one that is called makes one pass.

        A pass that goes on with the sequences of a cache runs as it is: it has other tokens each time.
        """
        if self._now is not None:
            return call.run()
        starts = not call.continues
        self._now = now = _Pass(in_layers=not starts, changed=not starts)
        try:
            output = call.run()
        finally:
            self._now = None
        self._has_run = self._has_run or (starts and now.in_layers)
        return output

    def run_text_model(self, call: Call) -> Any:
        """Answer the text model, from whose arguments every layer gets its mask and positions."""
        now = self._now
        if now is not None and not now.changed:
            now.changed = bool(collected(self._anatomy, call))
            if not now.changed and self._prompt is None:
                self._prompt = copied(call.tensors)
            else:
                now.changed = now.changed or not same(call.tensors, self._prompt or [])
        return call.run()

    def run_tower(self, tower: nn.Module, call: Call) -> Any:
        """Answer a module beside the layers, unless it runs after them or inside another tower.

        It may run before the pass: `generate` calls towers itself, and hands to the pass what they return. What they
        are given until the first pass is over is recorded.
        """
        if self._in_tower or (self._now is not None and self._now.in_layers):
            return call.run()
        known = next((record for record in self._towers[tower] if same(call.values, record.inputs)), None)
        if known is not None:
            return known.answer(call)
        if self._has_run:
            return call.run()
        self._in_tower = True
        try:
            record, output = call.record(copied(call.values))
        finally:
            self._in_tower = False
        self._towers[tower].append(record)
        return output

    def run_layer(self, index: int, call: Call) -> Any:
        """Answer a decoder layer."""
        now = self._now
        if now is None:
            return call.run()
        now.in_layers = True
        now.changed = now.changed or self._parts(index, call, now)
        now.seen.add(index)
        if now.changed:
            return call.run()
        if (record := self._layers.get(index)) is not None:
            return record.answer(call)
        # Mostly what left the layer before, so that one copy serves both; some decoders add to it in between.
        left = [self._layers[index - 1].hidden] if index - 1 in self._layers else []
        inputs = left if same([call.hidden], left) else copied([call.hidden])
        self._layers[index], output = call.record(inputs)
        return output

    def _parts(self, index: int, call: Call, now: _Pass) -> bool:
        """Whether a run parts from the others at this layer: something wants it to run, or it is not the same call."""
        site = self._anatomy.attention.get(index)
        listeners = () if site is None else vars(site.module).get(LISTENERS, ())
        if not all(context.can_skip(index) for _, _, context in listeners):
            return True
        if index >= self._depth or index in now.seen or call.hidden is None:
            return True
        record = self._layers.get(index)
        if record is None:
            return not self.keeps
        return not same([call.hidden], record.inputs) or not record.serves(call.cache)
