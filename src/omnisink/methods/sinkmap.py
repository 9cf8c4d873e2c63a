"""Where the sinks of a prompt are: layer by layer, sequence by sequence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError

_FORMAT = "omnisink.sinkmap.v1"


@dataclass(frozen=True, eq=False)
class SinkMap:
    """The sinks of a batch of prompts.

    Attributes
    ----------
    masks : dict of int to Tensor
        For every examined layer, (B, S) bool, True at sink tokens.
    real : Tensor
        (B, S) bool, False at padding.
    criterion : dict
        Name and settings of the criterion.
    magnitudes : dict of int to Tensor
        For every layer where it was recorded, (B, S) float32, the largest absolute activation of each token.
    """

    masks: Mapping[int, Tensor]
    real: Tensor
    criterion: Mapping[str, Any] = field(default_factory=dict)
    magnitudes: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def examined(self) -> list[int]:
        """Layers at which sinks were looked for, ascending."""
        return sorted(self.masks)

    @property
    def layers(self) -> list[int]:
        """Layers with at least one sink in any sequence, ascending."""
        return [layer for layer in self.examined if bool(self.masks[layer].any())]

    def mask(self, layer: int) -> Tensor:
        """Return the sinks of one layer.

        Parameters
        ----------
        layer : int
            An examined layer.

        Returns
        -------
        Tensor
            (B, S) bool.

        Raises
        ------
        OmnisinkError
            If sinks were not looked for at that layer.
        """
        if layer not in self.masks:
            span = f"{self.examined[0]} to {self.examined[-1]}" if self.masks else "none"
            raise OmnisinkError(f"sinks were not looked for at layer {layer} (examined: {span})")
        return self.masks[layer]

    def positions(self, layer: int, sequence: int = 0) -> list[int]:
        """Return the sink positions of one sequence at one layer, ascending; positions count padding too."""
        return [int(p) for p in self.mask(layer)[sequence].nonzero().flatten()]

    def magnitude(self, layer: int, sequence: int = 0) -> list[float]:
        """Return the largest activations of the sinks that `positions` lists; empty where none were recorded."""
        recorded = self.magnitudes.get(layer)
        return [] if recorded is None else [float(recorded[sequence, p]) for p in self.positions(layer, sequence)]

    def to_json(self, tokens: Sequence[Sequence[str]] | Sequence[str] | None = None) -> str:
        """Write the map as JSON.

        Parameters
        ----------
        tokens : sequence of str, or one such sequence for each sequence, optional
            Token texts to write along.

        Returns
        -------
        str
            Positions by layer and sequence, padding positions, settings; `from_json` reads it back.
        """
        batch, length = self.real.shape
        sequences = range(batch)
        data: dict[str, Any] = {
            "format": _FORMAT,
            "criterion": dict(self.criterion),
            "batch": batch,
            "length": length,
            "padding": [[int(p) for p in (~self.real[b]).nonzero().flatten()] for b in sequences],
            "examined": self.examined,
            "sinks": {str(layer): [self.positions(layer, b) for b in sequences] for layer in self.layers},
            "magnitudes": {
                str(layer): [[float(m) for m in row] for row in recorded]
                for layer, recorded in sorted(self.magnitudes.items())
            },
        }
        if tokens is not None:
            data["tokens"] = [list(row) for row in _by_sequence(tokens)]
        return json.dumps(data, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> SinkMap:
        """Read a map that `to_json` wrote.

        Parameters
        ----------
        text : str
            The JSON.

        Returns
        -------
        SinkMap
            With tensors on the CPU.

        Raises
        ------
        OmnisinkError
            If the text is not a sink map.
        """
        try:
            data = json.loads(text)
            if data["format"] != _FORMAT:
                raise OmnisinkError(f"unknown sink map format {data['format']!r}, expected {_FORMAT!r}")
            shape = (int(data["batch"]), int(data["length"]))
            real = ~_filled(shape, data["padding"])
            nothing: list[list[int]] = [[]] * shape[0]
            masks = {int(k): _filled(shape, data["sinks"].get(str(k), nothing)) for k in data["examined"]}
            sizes = {int(k): torch.tensor(rows, dtype=torch.float32) for k, rows in data["magnitudes"].items()}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise OmnisinkError(f"not a sink map: {type(error).__name__}: {error}") from None
        return cls(masks, real, data["criterion"], sizes)

    def table(self, tokens: Sequence[Sequence[str]] | Sequence[str] | None = None, sequence: int | None = None) -> str:
        """Draw the map as a small plain-text table; neighbouring layers with the same sinks share a line.

        Parameters
        ----------
        tokens : sequence of str, or one such sequence for each sequence, optional
            Token texts, shown with their quotes and escapes.
        sequence : int, optional
            Which sequence; None draws all.

        Returns
        -------
        str
            One line for each group of layers, without a final newline.
        """
        texts = None if tokens is None else _by_sequence(tokens)
        chosen = range(len(self.real)) if sequence is None else [sequence]
        many = len(chosen) > 1
        head = (["sequence"] if many else []) + ["layers", "positions"]
        head += (["tokens"] if texts is not None else []) + (["largest |h|"] if self.magnitudes else [])
        rows = [head]
        for b in chosen:
            marked = [(layer, self.positions(layer, b)) for layer in self.examined]
            numbered = [(i - layer, layer, found) for i, (layer, found) in enumerate(marked)]
            for (_, found), group in groupby(numbered, key=lambda item: (item[0], tuple(item[2]))):
                if not found:
                    continue
                span = [layer for _, layer, _ in group]
                row = [str(b)] if many else []
                row += [str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}", " ".join(map(str, found))]
                if texts is not None:
                    row.append(" ".join(repr(texts[b][p]) for p in found))
                if self.magnitudes:
                    peak = [max(self.magnitude(layer, b), default=0.0) for layer in span]
                    row.append(
                        f"{min(peak):,.0f}" if min(peak) == max(peak) else f"{min(peak):,.0f} to {max(peak):,.0f}"
                    )
                rows.append(row)
        if len(rows) == 1:
            return f"no sinks at the {len(self.examined)} layers examined"
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def __str__(self) -> str:
        """Draw the table of every sequence."""
        return self.table()


def _by_sequence(tokens: Sequence[Any]) -> Sequence[Sequence[str]]:
    return [tokens] if tokens and isinstance(tokens[0], str) else tokens


def _filled(shape: tuple[int, int], positions: Sequence[Sequence[int]]) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    for b, found in enumerate(positions):
        mask[b, list(found)] = True
    return mask
