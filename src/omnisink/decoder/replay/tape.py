"""What a model computed in one run, and how calls of its modules are answered with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.replay.calls import Call, RecordedCall, copied, same
from omnisink.decoder.replay.sharing import collected
from omnisink.errors import OmnisinkError, UnsupportedModelError


@dataclass
class _Recording:
    """What was recorded in one run: the text model's tensors, and the calls of towers and layers."""

    prompt: list[Tensor] = field(default_factory=list)
    towers: defaultdict[nn.Module, list[RecordedCall]] = field(default_factory=lambda: defaultdict(list))
    layers: dict[int, RecordedCall] = field(default_factory=dict)


@dataclass
class _Pass:
    """A pass that fills `run`, or takes from it what comes before the layer `start`."""

    run: _Recording
    fills: bool
    start: int
    calls: Counter[nn.Module] = field(default_factory=Counter)
    in_tower: bool = False
    in_layers: bool = False


class Tape:
    """What a model computed in one run; `from_layer` and `residual` are for its user.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._depth = len(anatomy.layers)
        self._run: _Recording | None = None
        self._start: int | None = None
        self._now: _Pass | None = None
        self._ended = False

    @contextmanager
    def from_layer(self, layer: int) -> Iterator[None]:
        """Run only layer `layer` and those after it, for the length of a block.

        Layers before it, and the towers, return what they returned in the recorded run. From layer 0 the towers alone
        are replayed: the words around the same image or sound may then be others. Outside the block nothing is.

        Parameters
        ----------
        layer : int
            First layer to run, 0 to L - 1.

        Raises
        ------
        OmnisinkError
            If nothing is recorded yet or there is no such layer; in the block, if the model is given another prompt, a
            key/value cache where it was recorded without, or is asked for attention weights or router logits.
        """
        if self._ended:
            raise OmnisinkError("the replay() block of this tape has ended; call from_layer() inside it")
        self._recorded()
        if not 0 <= layer < self._depth:
            raise OmnisinkError(f"from_layer({layer}): the model has layers 0 to {self._depth - 1}")
        before, self._start = self._start, layer
        try:
            yield
        finally:
            self._start = before

    def residual(self, layer: int) -> Tensor:
        """Return the residual stream that entered a layer in the recorded run.

        Parameters
        ----------
        layer : int
            0 to L; L is what left the last layer, before the final norm.

        Returns
        -------
        Tensor
            (B, S, d), a copy, in the dtype and on the device of the layer.

        Raises
        ------
        OmnisinkError
            If nothing is recorded yet, or the recorded run did not reach such a layer.
        """
        layers = self._recorded().layers
        record = layers.get(self._depth - 1 if layer == self._depth else layer)
        if record is None:
            raise OmnisinkError(f"residual({layer}): the recorded run went through layers {sorted(layers)}")
        entered: Tensor = record.hidden if layer == self._depth else record.inputs[0]
        return entered.clone()

    def end(self) -> None:
        """Refuse to replay from now on."""
        self._ended = True

    def _recorded(self) -> _Recording:
        if self._run is None:
            raise OmnisinkError("nothing is recorded yet: call the model once inside replay(), without from_layer()")
        return self._run

    def run_pass(self, call: Call) -> Any:
        """Answer a module around the layers: the outermost one that is called makes one pass.

        A pass that goes on with the sequences of a cache runs as it is: it has other tokens each time.
        """
        idle = self._run is not None and self._start is None
        if self._now is not None or idle or call.continues:
            return call.run()
        self._now = now = _Pass(self._run or _Recording(), self._run is None, self._start or 0)
        try:
            output = call.run()
        finally:
            self._now = None
        if now.fills and now.in_layers:
            self._run = now.run
        return output

    def run_text_model(self, call: Call) -> Any:
        """Answer the text model, from whose arguments every layer gets its mask and positions."""
        now = self._now
        if now is not None and now.fills:
            now.run.prompt = copied(call.tensors)
        elif now is not None and now.start != 0:
            if asked := collected(self._anatomy, call):
                raise OmnisinkError(f"{asked[0]} cannot be answered from a tape: the layers on it are not run")
            if not same(call.tensors, now.run.prompt):
                raise OmnisinkError(
                    "this is another prompt than the recorded one: its tokens, mask or positions differ. "
                    "Record each prompt on a tape of its own"
                )
        return call.run()

    def run_tower(self, tower: nn.Module, call: Call) -> Any:
        """Answer a module beside the layers, unless it runs after them or inside another tower.

        One that is called less often than in the recorded run needs no word: what it does not add, the layers miss.
        """
        now = self._now
        if now is None or now.in_layers or now.in_tower:
            return call.run()
        records, number = now.run.towers[tower], now.calls[tower]
        now.calls[tower] += 1
        if now.fills:
            now.in_tower = True
            record, output = call.record(copied(call.values))
            now.in_tower = False
            records.append(record)
            return output
        if number < len(records) and same(call.values, records[number].inputs):
            return records[number].answer(call)
        if number == len(records):
            raise OmnisinkError(f"{type(tower).__name__} is called more often than in the recorded run ({number})")
        raise OmnisinkError(
            f"{type(tower).__name__} is given something else than in the recorded run. "
            "Record each image, video and sound on a tape of its own"
        )

    def run_layer(self, index: int, call: Call) -> Any:
        """Answer a decoder layer."""
        now = self._now
        if now is None:
            return call.run()
        now.in_layers = True
        if not now.fills and index >= now.start:
            return call.run()
        self._check(index, call, now)
        records = now.run.layers
        if not now.fills:
            return records[index].answer(call)
        # Mostly what left the layer before, so that one copy serves both; some decoders add to it in between.
        left = [records[index - 1].hidden] if index - 1 in records else []
        records[index], output = call.record(left if same([call.hidden], left) else copied([call.hidden]))
        return output

    def _check(self, index: int, call: Call, now: _Pass) -> None:
        """Refuse a layer that cannot be recorded, or not be answered."""
        what = f"layer {index} ({type(self._anatomy.layers[index]).__name__})"
        record = now.run.layers.get(index)
        if call.hidden is None:
            raise UnsupportedModelError(f"{what} does not receive one residual stream (B, S, d)")
        if now.fills and record is not None:
            raise UnsupportedModelError(f"{what} runs twice in one pass: there is no one input to compare with")
        if now.fills:
            return
        if record is None or not same([call.hidden], record.inputs):
            raise OmnisinkError(
                f"another residual stream enters {what} than in the recorded run: the prompt is another, or "
                f"something before layer {now.start} was changed. Start at the first layer that changes"
            )
        if not record.serves(call.cache):
            raise OmnisinkError(
                "the recorded run had no key/value cache, so a layer that is not run cannot fill one: call the model "
                "with use_cache=False, or record with a cache"
            )
