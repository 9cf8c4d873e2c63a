"""What a method did, readable during and after its block."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.errors import OmnisinkError
from omnisink.methods.finiteness import Finiteness
from omnisink.methods.sinkmap import SinkMap


@dataclass
class Record:
    """What happened in one prefill and in the passes that continued it. Tensors stay on their device until read.

    Attributes
    ----------
    batch, length : int
        B and S of the prefill.
    real : Tensor or None
        (B, S) bool; None where every token is real.
    sinks : dict of int to Tensor
        (B, S) bool for every examined layer.
    magnitudes : dict of int to Tensor
        (B, S) float32, where a method records them.
    relaxed : list of (int, Tensor)
        Layer and (B, S) bool, in order.
    rotated : dict of int to Tensor
        For each layer, the number of rotated positions of every sequence in the prefill, (B,).
    continued : Tensor or None
        (B,) number of tokens rotated after the prefill at every layer where that prompt has a sink.
    uncovered : dict of int to (int, Tensor)
        For layers with a window where relaxation was due: the window, and (B,) bool, where it did not cover the
        prompt.
    measured : dict of str to dict of int to Tensor
        What a recorder measured: by name and layer, with the sequence as first dimension.
    skipped : dict of int to str
        Layers left alone, with the reason.
    doubts : list of (Tensor, OmnisinkError)
        Bool scalars that must turn out False, and what to raise if one does not.
    finite : Finiteness
        Whether the residual stream held numbers; `finite.magnitudes` is filled by methods that look at it.
    """

    batch: int
    length: int
    real: Tensor | None = None
    sinks: dict[int, Tensor] = field(default_factory=dict)
    magnitudes: dict[int, Tensor] = field(default_factory=dict)
    relaxed: list[tuple[int, Tensor]] = field(default_factory=list)
    rotated: dict[int, Tensor] = field(default_factory=dict)
    continued: Tensor | None = None
    uncovered: dict[int, tuple[int, Tensor]] = field(default_factory=dict)
    measured: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    doubts: list[tuple[Tensor, OmnisinkError]] = field(default_factory=list)
    finite: Finiteness = field(default_factory=Finiteness)

    def doubt(self, flag: Tensor, error: OmnisinkError) -> None:
        """Note what to check when the host may wait: `flag` must be False."""
        self.doubts.append((flag, error))


class Trace:
    """What a method found and did in the last prefill of its block, and in what was generated from it.

    Reading it may wait for the accelerator; the method itself never does.
    """

    def __init__(self, criterion: dict[str, Any], model: nn.Module | None = None) -> None:
        self._criterion = criterion
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self._finite: Finiteness | None = None
        self._record: Record | None = None
        self._doubts: dict[str, tuple[Tensor, OmnisinkError]] = {}

    def begin(self, record: Record) -> None:
        """Start reporting a new prefill. What the one before left in doubt is kept, one flag for each kind."""
        if self._record is not None:
            for flag, error in self._record.doubts:
                before = self._doubts.get(str(error))
                self._doubts[str(error)] = (flag if before is None else flag | before[0].to(flag.device), error)
            finite = self._record.finite.reduced()
            self._finite = finite if self._finite is None else finite.merge(self._finite)
        self._record = record

    def settle(self) -> None:
        """Check every doubt of the block; the only place where the host waits for them.

        Raises
        ------
        OmnisinkError
            The first doubt that came true.
        """
        current = [] if self._record is None else self._record.doubts
        for flag, error in [*self._doubts.values(), *current]:
            if bool(flag):
                raise error
        self.check_finite()

    def check_finite(self) -> None:
        """Raise where a residual stream of the block was not finite; the host waits.

        Raises
        ------
        OmnisinkError
            Of the last prefill, or else of the earlier ones.
        """
        for finite in (self._record.finite if self._record is not None else None, self._finite):
            if finite is not None:
                finite.check(self._model())

    @property
    def record(self) -> Record:
        """The raw record of the last prefill."""
        if self._record is None:
            raise OmnisinkError("the trace is empty: no prompt has been run inside the block")
        self.settle()
        return self._record

    @property
    def sinks(self) -> SinkMap:
        """Sinks of the last prefill."""
        record = self.record
        real = torch.ones(record.batch, record.length, dtype=torch.bool) if record.real is None else record.real.cpu()
        masks = {layer: mask.cpu() for layer, mask in record.sinks.items()}
        return SinkMap(masks, real, self._criterion, {k: m.cpu() for k, m in record.magnitudes.items()})

    @property
    def relaxed(self) -> list[tuple[int, int, int]]:
        """Relaxed rows as (layer, sequence, position), in order."""
        return [
            (layer, int(sequence), int(position))
            for layer, mask in self.record.relaxed
            for sequence, position in mask.cpu().nonzero()
        ]

    @property
    def rotated_tokens(self) -> dict[int, int]:
        """For every layer with a sink, how many token positions were rotated: in the prompt, and generated since."""
        record = self.record
        counts = {}
        for layer, mask in sorted(record.sinks.items()):
            if layer not in record.rotated:
                continue
            has_sink = mask.any(dim=1).cpu()
            total = int(record.rotated[layer].sum())
            if record.continued is not None:
                total += int((record.continued.cpu() * has_sink).sum())
            if bool(has_sink.any()):
                counts[layer] = total
        return counts

    @property
    def skipped_layers(self) -> dict[int, str]:
        """Layers where the method, or a part of it, could not act, with the reason."""
        record = self.record
        reasons = dict(record.skipped)
        for layer, (window, flags) in record.uncovered.items():
            if bool(flags.any()):
                which = [int(b) for b in flags.cpu().nonzero().flatten()]
                reasons[layer] = (
                    f"not relaxed: its window of {window} tokens does not cover the prompt of sequence {which}"
                )
        return dict(sorted(reasons.items()))
