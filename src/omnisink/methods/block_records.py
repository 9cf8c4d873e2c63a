"""What methods write of a block: the record of a prefill, and what is checked at the end of the block."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from omnisink.decoder.branches import FIRST
from omnisink.errors import OmnisinkError
from omnisink.methods.finiteness import Finiteness


@dataclass
class Record:
    """What happened in one prefill and in the passes that continued it. Tensors stay on their device until read.

    A method that has more to report derives a class from it, and names that in `Method.record_type`.

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
    measured : dict of str to dict of int to Tensor
        What was measured: by name and layer, with the sequence as first dimension.
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
    measured: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    deferred_checks: list[tuple[Tensor, OmnisinkError]] = field(default_factory=list)
    finite: Finiteness = field(default_factory=Finiteness)

    def defer_check(self, flag: Tensor, error: OmnisinkError) -> None:
        """Note what to check when the host may wait: `flag` must be False."""
        self.deferred_checks.append((flag, error))


class BlockRecords:
    """The record of a block's last prefill, and what earlier ones leave to be checked.

    `omnisink.methods.trace.Trace`, which the user reads, derives from it.
    """

    def __init__(self, criterion: dict[str, Any], model: nn.Module | None = None) -> None:
        self._criterion = criterion
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self._finite: Finiteness | None = None
        self._record: Any = None
        self._twins: dict[int, Record] = {}
        self._deferred_checks: dict[str, tuple[Tensor, OmnisinkError]] = {}

    def begin(self, record: Record, branch: int = FIRST) -> None:
        """Start reporting a new prefill. What the one before has to be checked for is kept, one flag for each kind.

        Prefills of twins (`omnisink.decoder.twins`) are checked, and not shown.
        """
        before = self._record if branch == FIRST else self._twins.get(branch)
        if before is not None:
            for flag, error in before.deferred_checks:
                known = self._deferred_checks.get(str(error))
                flag = flag if known is None else flag | known[0].to(flag.device)
                self._deferred_checks[str(error)] = flag, error
            self._finite = before.finite.reduced(self._finite)
        if branch == FIRST:
            self._record = record
        else:
            self._twins[branch] = record

    def raise_deferred(self) -> None:
        """Raise the first error of all checks of the block; the only place where the host waits for them."""
        current = [check for record in self._running() for check in record.deferred_checks]
        for flag, error in [*self._deferred_checks.values(), *current]:
            if bool(flag):
                raise error
        self.check_finite()

    def check_finite(self) -> None:
        """Raise where a residual stream of the block was not finite, in the last prefill or before; the host waits."""
        for finite in (*(record.finite for record in self._running()), self._finite):
            if finite is not None:
                finite.check(self._model())

    def _running(self) -> list[Record]:
        return [*([] if self._record is None else [self._record]), *self._twins.values()]
