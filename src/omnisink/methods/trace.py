"""What a method did, readable during and after its block."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omnisink.errors import OmnisinkError
from omnisink.methods.finiteness import Finiteness
from omnisink.methods.sinkmap import SinkMap
from omnisink.methods.trace_views import trace_columns, trace_in_brief, trace_in_html
from omnisink.results.frames import data_frame

if TYPE_CHECKING:
    import pandas as pd


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


class Trace:
    """What a method found and did in the last prefill of its block, and in what was generated from it.

    Reading it may wait for the accelerator; the method itself never does.
    """

    def __init__(self, criterion: dict[str, Any], model: nn.Module | None = None) -> None:
        self._criterion = criterion
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self._finite: Finiteness | None = None
        self._record: Any = None
        self._deferred_checks: dict[str, tuple[Tensor, OmnisinkError]] = {}

    def begin(self, record: Record) -> None:
        """Start reporting a new prefill. What the one before has to be checked for is kept, one flag for each kind."""
        if self._record is not None:
            for flag, error in self._record.deferred_checks:
                before = self._deferred_checks.get(str(error))
                flag = flag if before is None else flag | before[0].to(flag.device)
                self._deferred_checks[str(error)] = flag, error
            self._finite = self._record.finite.reduced(self._finite)
        self._record = record

    def raise_deferred(self) -> None:
        """Make every check of the block; the only place where the host waits for them.

        Raises
        ------
        OmnisinkError
            The first that fails.
        """
        current = [] if self._record is None else self._record.deferred_checks
        for flag, error in [*self._deferred_checks.values(), *current]:
            if bool(flag):
                raise error
        self.check_finite()

    def check_finite(self) -> None:
        """Raise where a residual stream of the block was not finite, in the last prefill or before; the host waits."""
        for finite in (None if self._record is None else self._record.finite, self._finite):
            if finite is not None:
                finite.check(self._model())

    @property
    def record(self) -> Any:
        """The raw record of the last prefill, of the method's own class; see `Record`."""
        if self._record is None:
            raise OmnisinkError("the trace is empty: no prompt has been run inside the block")
        self.raise_deferred()
        return self._record

    @property
    def token_mask(self) -> Tensor:
        """Real tokens of the last prefill, (B, S) bool on the CPU."""
        record = self.record
        if record.token_mask is None:
            return torch.ones(record.batch, record.length, dtype=torch.bool)
        return record.token_mask.cpu()

    @property
    def is_empty(self) -> bool:
        """Whether no prompt has been run inside the block."""
        return self._record is None

    def to_dataframe(self) -> pd.DataFrame:
        """Return the last prefill and what was generated from it as a table of pandas, a row for each layer.

        Returns
        -------
        DataFrame
            ``layer``, and over the batch: ``sinks`` (tokens), ``relaxed`` (rows), ``rotated`` (token positions, those
            generated since included), and ``skipped`` (the reason, or an empty text).

        Raises
        ------
        OmnisinkError
            If nothing was run, or pandas is not installed.
        """
        return data_frame(trace_columns(self))

    def __repr__(self) -> str:
        """Say in one line what was found and done; it may wait for the accelerator."""
        return f"{type(self).__name__}({trace_in_brief(self)})"

    def _repr_html_(self) -> str:
        """Show the layers at which something was found or done in a notebook."""
        return trace_in_html(self)

    @property
    def sinks(self) -> SinkMap:
        """Sinks of the last prefill."""
        masks, sizes = self.record.sinks, self.record.magnitudes
        masks, sizes = ({layer: found.cpu() for layer, found in of.items()} for of in (masks, sizes))
        return SinkMap(masks, self.token_mask, self._criterion, sizes)

    def changes(self) -> dict[str, Any]:
        """Return what was changed, by name and as plain data, beside what `sinks` and `skipped_layers` say."""
        return {}

    @property
    def skipped_layers(self) -> dict[int, str]:
        """Layers where the method, or a part of it, could not act, with the reason."""
        return dict(sorted(self.record.skipped.items()))
