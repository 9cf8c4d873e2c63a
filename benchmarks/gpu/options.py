"""Options of a run, which the command passes to its processes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

#: Parts of a run: two that check, and five that measure.
CHECKS = ("checks", "families")
MEASURES = ("prefill", "decode", "graph", "routing", "compiled")
PARTS = (*CHECKS, *MEASURES)


@dataclass(frozen=True)
class Options:
    """Settings of a run.

    Attributes
    ----------
    results : str
        File of lines that every process appends to.
    device : str
        ``"cuda"``, or ``"cpu"`` to try the command itself.
    shape : str
        ``"7b"`` or ``"tiny"``.
    quick : bool
        Fewer pairs, lengths and cases.
    parts : tuple of str
        Some of `PARTS`.
    deadline : float
        When to have ended, in seconds since the epoch.
    part_limit : float
        Seconds after which a part starts no further case.
    layers : int
        Layers of the model that is compiled; 0 lets the time that is left decide.
    done : tuple of str
        Cases that an earlier process has settled.
    share : tuple of int
        Share of the families: every n-th from the k-th, (k, n).
    """

    results: str
    device: str = "cuda"
    shape: str = "7b"
    quick: bool = False
    parts: tuple[str, ...] = PARTS
    deadline: float = 0.0
    part_limit: float = 1e9
    layers: int = 0
    done: tuple[str, ...] = ()
    share: tuple[int, int] = (0, 1)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.time()

    def to_json(self) -> str:
        """Write the options as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        """Read them again."""
        values = json.loads(text)
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
