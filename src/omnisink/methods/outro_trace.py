"""What OutRo did, as its user reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.methods.trace import Trace

if TYPE_CHECKING:
    from omnisink.methods.outro import OutRoRecord


class OutRoTrace(Trace):
    """What OutRo found and did in the last prefill of its block, and in what was generated from it."""

    def changes(self) -> dict[str, Any]:
        """Return `rotated_tokens` and `relaxed`, by name."""
        return {"rotated_tokens": self.rotated_tokens, "relaxed": self.relaxed}

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
        record, frozen = self.record, ~self.token_mask
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
        record, reasons = self.record, super().skipped_layers
        for layer, window in record.windows.items():
            sinks = record.sinks[layer].cpu()
            if record.relaxed_at is not None:
                stamps = record.relaxed_at.cpu()
                sinks = sinks & ((stamps == 0) | (stamps > layer))
            long = self.token_mask.sum(dim=1) > window
            which = (sinks.any(dim=1) & long).nonzero().flatten().tolist()
            if which:
                reasons[layer] = (
                    f"not relaxed: its window of {window} tokens does not cover the prompt of sequence {which}"
                )
        return dict(sorted(reasons.items()))


def _tokens_since(record: OutRoRecord) -> Tensor:
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
