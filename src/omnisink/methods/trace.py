"""What a method did, readable during and after its block."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder.passes import Pass
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
    token_mask : Tensor or None
        (B, S) bool; None where every token is real.
    sinks : dict of int to Tensor
        (B, S) bool for every examined layer.
    magnitudes : dict of int to Tensor
        (B, S) float32, where a method records them.
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
    measured : dict of str to dict of int to Tensor
        What a recorder measured: by name and layer, with the sequence as first dimension.
    skipped : dict of int to str
        Layers left alone, with the reason.
    deferred_checks : list of (Tensor, OmnisinkError)
        Bool scalars that must turn out False, and what to raise if one does not.
    finite : Finiteness
        Whether the residual stream held numbers; `finite.magnitudes` is filled by methods that look at it.
    """

    batch: int
    length: int
    token_mask: Tensor | None = None
    sinks: dict[int, Tensor] = field(default_factory=dict)
    magnitudes: dict[int, Tensor] = field(default_factory=dict)
    relaxed_at: Tensor | None = None
    rotated: list[int] = field(default_factory=list)
    later: list[list[Any]] = field(default_factory=list)
    held: Tensor | None = None
    unseen: bool = False
    windows: dict[int, int] = field(default_factory=dict)
    measured: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    deferred_checks: list[tuple[Tensor, OmnisinkError]] = field(default_factory=list)
    finite: Finiteness = field(default_factory=Finiteness)

    def defer_check(self, flag: Tensor, error: OmnisinkError) -> None:
        """Note what to check when the host may wait: `flag` must be False."""
        self.deferred_checks.append((flag, error))

    def count(self, now: Pass, origin: Tensor) -> None:
        """Count the tokens of a pass, on the host: nothing that outlives the pass is written on the device.

        Parameters
        ----------
        now : Pass
            The pass.
        origin : Tensor
            (B',) int64, from which prompt of the prefill each of its sequences comes.
        """
        if now.held is not None:
            self.held = now.held
        if now.is_prefill:
            self.later.append([origin, 0])
        elif torch.compiler.is_compiling():
            if now.held is None:
                self.unseen = True
        elif now.token_mask is not None:
            self.later.append([origin, now.token_mask.sum(dim=1)])
        elif self.later[-1][0] is origin and isinstance(self.later[-1][1], int):
            self.later[-1][1] += now.length
        else:
            self.later.append([origin, now.length])


class Trace:
    """What a method found and did in the last prefill of its block, and in what was generated from it.

    Reading it may wait for the accelerator; the method itself never does.
    """

    def __init__(self, criterion: dict[str, Any], model: nn.Module | None = None) -> None:
        self._criterion = criterion
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self._finite: Finiteness | None = None
        self._record: Record | None = None
        self._deferred_checks: dict[str, tuple[Tensor, OmnisinkError]] = {}

    def begin(self, record: Record) -> None:
        """Start reporting a new prefill. What the one before left in doubt is kept, one flag for each kind."""
        if self._record is not None:
            for flag, error in self._record.deferred_checks:
                before = self._deferred_checks.get(str(error))
                self._deferred_checks[str(error)] = (
                    flag if before is None else flag | before[0].to(flag.device),
                    error,
                )
            finite = self._record.finite.reduced()
            self._finite = finite if self._finite is None else finite.merge(self._finite)
        self._record = record

    def raise_deferred(self) -> None:
        """Check every doubt of the block; the only place where the host waits for them.

        Raises
        ------
        OmnisinkError
            The first doubt that came true.
        """
        current = [] if self._record is None else self._record.deferred_checks
        for flag, error in [*self._deferred_checks.values(), *current]:
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
        self.raise_deferred()
        return self._record

    @property
    def sinks(self) -> SinkMap:
        """Sinks of the last prefill."""
        record = self.record
        token_mask = (
            torch.ones(record.batch, record.length, dtype=torch.bool)
            if record.token_mask is None
            else record.token_mask.cpu()
        )
        masks = {layer: mask.cpu() for layer, mask in record.sinks.items()}
        return SinkMap(masks, token_mask, self._criterion, {k: m.cpu() for k, m in record.magnitudes.items()})

    @property
    def relaxed(self) -> list[tuple[int, int, int]]:
        """Relaxed rows as (layer, sequence, position), in order."""
        if self.record.relaxed_at is None:
            return []
        stamps = self.record.relaxed_at.cpu()
        return sorted((int(stamps[b, t]) - 1, b, t) for b, t in stamps.nonzero().tolist())

    @property
    def rotated_tokens(self) -> dict[int, int]:
        """For every layer with a sink, how many token positions were rotated: in the prompt, and generated since.

        Raises
        ------
        OmnisinkError
            If a compiled graph has made passes that neither the host nor the cache has counted.
        """
        record = self.record
        frozen = torch.zeros(record.batch, record.length, dtype=torch.bool)
        frozen = frozen if record.token_mask is None else ~record.token_mask.cpu()
        later, counts = _tokens_since(record), {}
        for layer in record.rotated:
            sinks = record.sinks[layer].cpu()
            frozen = frozen | sinks
            has_sink = sinks.any(dim=1)
            if bool(has_sink.any()):
                counts[layer] = int((((~frozen).sum(dim=1) + later) * has_sink).sum())
        return dict(sorted(counts.items()))

    @property
    def skipped_layers(self) -> dict[int, str]:
        """Layers where the method, or a part of it, could not act, with the reason."""
        record = self.record
        reasons = dict(record.skipped)
        for layer, window in record.windows.items():
            sinks = record.sinks[layer].cpu()
            if record.relaxed_at is not None:
                stamps = record.relaxed_at.cpu()
                sinks = sinks & ((stamps == 0) | (stamps > layer))
            size = (
                torch.full((record.batch,), record.length)
                if record.token_mask is None
                else record.token_mask.cpu().sum(dim=1)
            )
            which = (sinks.any(dim=1) & (size > window)).nonzero().flatten().tolist()
            if which:
                reasons[layer] = (
                    f"not relaxed: its window of {window} tokens does not cover the prompt of sequence {which}"
                )
        return dict(sorted(reasons.items()))


def _tokens_since(record: Record) -> Tensor:
    """Return how many tokens of every prompt were rotated after the prefill, (B,)."""
    total = torch.zeros(record.batch, dtype=torch.long)
    if not record.rotated or not record.later:
        return total
    seen = 0
    for origin, amount in record.later:
        tokens = amount.cpu() if isinstance(amount, Tensor) else torch.full((len(origin),), amount)
        total.index_add_(0, origin.cpu(), tokens)
        seen += amount if isinstance(amount, int) else int(amount.max())
    if record.held is not None:
        unseen = max(0, int(record.held) - record.length - seen)
        return total.index_add_(0, origin.cpu(), torch.full((len(origin),), unseen))
    if record.unseen:
        raise OmnisinkError(
            "how many tokens were rotated after the prompt is not known: they ran in a compiled graph, and the cache "
            "does not count them on the device. Use a static cache, or run without torch.compile to count"
        )
    return total
