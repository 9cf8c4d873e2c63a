"""What several methods did in one block, as one trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnisink.methods.trace import Trace


class ComposedTrace(Trace):
    """The traces of several methods as one; `traces` has each, in the order in which the methods were attached.

    Sinks and the record are those of the first method that looks for sinks, or of the first of all.

    Parameters
    ----------
    traces : sequence of Trace
        One or more.
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        self.traces = tuple(traces)
        self._leading = next((one for one in self.traces if one._criterion), self.traces[0])
        super().__init__(self._leading._criterion)

    @property
    def record(self) -> Any:
        """The raw record of the last prefill, of the leading method."""
        self.raise_deferred()
        return self._leading.record

    @property
    def is_empty(self) -> bool:
        """Whether no prompt has been run inside the block."""
        return all(one.is_empty for one in self.traces)

    def raise_deferred(self) -> None:
        """Raise the first error of all checks of the block."""
        for one in self.traces:
            one.raise_deferred()

    def check_finite(self) -> None:
        """Raise where a residual stream of the block was not finite."""
        for one in self.traces:
            one.check_finite()

    def changes(self) -> dict[str, Any]:
        """Return what all of them changed; of two that say the same by one name, the first's."""
        return {name: said for one in reversed(self.traces) for name, said in one.changes().items()}

    def skip_ratios_of(self, steps: Sequence[int] | None) -> list[float | None]:
        """Return the share of key/value heads that was left out, of the first method that leaves any out."""
        found = [one.skip_ratios_of(steps) for one in self.traces]
        return next((ratios for ratios in found if any(one is not None for one in ratios)), found[0])

    @property
    def skipped_layers(self) -> dict[int, str]:
        """Layers where any of the methods, or a part of one, could not act, with the reasons."""
        found: dict[int, list[str]] = {}
        for one in self.traces:
            for layer, why in one.skipped_layers.items():
                reasons = found.setdefault(layer, [])
                if why not in reasons:
                    reasons.append(why)
        return {layer: "; ".join(reasons) for layer, reasons in sorted(found.items())}

    def __getattr__(self, name: str) -> Any:
        """Read what one kind of trace reports off the first of them that has it."""
        if not name.startswith("_"):
            for one in self.traces:
                if hasattr(one, name):
                    return getattr(one, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
