"""Which tokens are marked at which layers, grouped and in words: for the figures and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A run of neighbours, as (first, last).
Run = tuple[int, int]


@dataclass(frozen=True)
class MarkedTokens:
    """Neighbouring tokens that are marked at the same layers; most often a single token.

    Attributes
    ----------
    first, last : int
        Positions; equal for a single token.
    layers : tuple of (int, int)
        Runs of layers, ascending.
    """

    first: int
    last: int
    layers: tuple[Run, ...]

    @property
    def text(self) -> str:
        """Say which tokens and layers: "token 0, layers 12–27"."""
        tokens = f"token {self.first}" if self.first == self.last else f"tokens {self.first}–{self.last}"
        return f"{tokens}, {layers_in_words(self.layers)}"


def grouped(values: Iterable[int]) -> list[Run]:
    """Group ascending whole numbers into runs without a gap, as (first, last)."""
    runs: list[Run] = []
    for value in values:
        runs[-1:] = [(runs[-1][0], value)] if runs and runs[-1][1] == value - 1 else [*runs[-1:], (value, value)]
    return runs


def layers_in_words(runs: Sequence[Run], layers: Sequence[int] | None = None) -> str:
    """Name runs of layers: "layer 5", "layers 2–10, 12–27"; of many runs the first two and the last.

    `layers` are the numbers of the rows that the runs count; None where they count layers.
    """
    named = [(a, b) if layers is None else (layers[a], layers[b]) for a, b in runs]
    texts = [str(a) if a == b else f"{a}–{b}" for a, b in named]
    single = len(named) == 1 and named[0][0] == named[0][1]
    return ("layer " if single else "layers ") + ", ".join(texts if len(texts) <= 3 else [*texts[:2], "…", texts[-1]])


def marked_tokens(cells: Iterable[tuple[int, int]]) -> list[MarkedTokens]:
    """Group marked cells (layer, position) into tokens, neighbours that are marked alike together."""
    layers: dict[int, list[int]] = {}
    for layer, position in sorted(set(cells)):
        layers.setdefault(position, []).append(layer)
    found: list[MarkedTokens] = []
    for position in sorted(layers):
        runs = tuple(grouped(layers[position]))
        if found and found[-1].last == position - 1 and found[-1].layers == runs:
            found[-1] = MarkedTokens(found[-1].first, position, runs)
        else:
            found.append(MarkedTokens(position, position, runs))
    return found
