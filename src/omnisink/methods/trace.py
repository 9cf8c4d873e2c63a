"""What a method did, readable during and after its block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.methods.block_records import BlockRecords
from omnisink.methods.sinkmap import SinkMap
from omnisink.methods.trace_views import trace_columns, trace_in_brief, trace_in_html
from omnisink.results.frames import data_frame

if TYPE_CHECKING:
    import pandas as pd


class Trace(BlockRecords):
    """What a method found and did in the last prefill of its block, and in what was generated from it.

    Reading it may wait for the accelerator; the method itself never does.

    Attributes
    ----------
    decoder : str
        Path of the language model that was found in the model, as ``"language_model"``; empty where the model is one,
        or its configuration leads to it.
    """

    decoder: str = ""

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

    def skip_ratios_of(self, steps: Sequence[int] | None) -> list[float | None]:
        """Return the share of key/value heads that was left out for every prompt; None where nothing ever is.

        `steps` says how many steps after each prompt count, from the first; None is all.
        """
        return [None] * self.record.batch

    @property
    def skipped_layers(self) -> dict[int, str]:
        """Layers where the method, or a part of it, could not act, with the reason."""
        return dict(sorted(self.record.skipped.items()))
