"""Where the sinks of a prompt are: layer by layer, sequence by sequence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any, TypedDict

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError, shown
from omnisink.results.checking import Range, check
from omnisink.results.reading import parse_object
from omnisink.results.schema import Count

_FORMAT = "omnisink.sinkmap.v1"
#: Layers of a map, and tokens of all its prompts together, at most: some bits of memory for each token and layer.
_LAYERS, _TOKENS = 10_000, 2**26
#: Marks of a map at most, layers times tokens: a hundred layers of a batch of ten prompts of a million tokens.
_MARKS = 2**30


class _Needed(TypedDict):
    format: str
    criterion: dict[str, Any]
    batch: Count
    length: Count
    padding: list[list[Count]]
    examined: list[Annotated[int, Range(0, _LAYERS - 1)]]
    sinks: dict[str, list[list[Count]]]
    magnitudes: dict[str, list[list[float | None]]]


class _Form(_Needed, total=False):
    """What `SinkMap.to_json` writes; other fields, as a command adds them, may be anything."""

    tokens: list[list[str]]


@dataclass(frozen=True, eq=False)
class SinkMap:
    """The sinks of a batch of prompts.

    Attributes
    ----------
    masks : dict of int to Tensor
        For every examined layer, (B, S) bool, True at sink tokens.
    token_mask : Tensor
        (B, S) bool, False at padding.
    criterion : dict
        Name and settings of the criterion.
    magnitudes : dict of int to Tensor
        For every layer where it was recorded, (B, S) float32, the largest absolute activation of each token.
    """

    masks: Mapping[int, Tensor]
    token_mask: Tensor
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
            Positions by layer and sequence, padding positions, settings; `from_json` reads it back. An activation that
            is not finite is null, and read back as NaN.
        """
        batch, length = self.token_mask.shape
        sequences = range(batch)
        data: dict[str, Any] = {
            "format": _FORMAT,
            "criterion": dict(self.criterion),
            "batch": batch,
            "length": length,
            "padding": [[int(p) for p in (~self.token_mask[b]).nonzero().flatten()] for b in sequences],
            "examined": self.examined,
            "sinks": {str(layer): [self.positions(layer, b) for b in sequences] for layer in self.layers},
            "magnitudes": {
                str(layer): [[float(m) if m.isfinite() else None for m in row] for row in recorded.float().cpu()]
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
            If the text is not a sink map: a field is missing, of another type, or does not fit the others.
        """
        data = parse_object(text, "not a sink map")
        if data.get("format", _FORMAT) != _FORMAT:
            raise OmnisinkError(f"unknown sink map format {shown(data['format'])}, expected {_FORMAT!r}")
        check(data, _Form, "not a sink map")
        # Before anything of that size is made.
        shape, examined = (data["batch"], data["length"]), data["examined"]
        if shape[0] * shape[1] > _TOKENS or shape[0] * shape[1] * len(examined) > _MARKS:
            raise OmnisinkError(f"not a sink map: {len(examined):,d} layers of {shape[0]:,d} x {shape[1]:,d} tokens")
        if len(set(examined)) < len(examined):
            raise OmnisinkError("not a sink map: examined names a layer twice")
        for name in ("sinks", "magnitudes"):
            if unknown := [key for key in data[name] if not key.isdecimal() or int(key[:6]) not in examined]:
                raise OmnisinkError(f"not a sink map: {name} has {shown(unknown[0])}, which is no layer of examined")
        token_mask = ~_filled(shape, data["padding"], "padding")
        nothing: list[list[int]] = [[]] * shape[0]
        masks = {k: _filled(shape, data["sinks"].get(str(k), nothing), f"sinks.{k}") for k in examined}
        sizes = {int(k): _sized(shape, rows, f"magnitudes.{k}") for k, rows in data["magnitudes"].items()}
        return cls(masks, token_mask, data["criterion"], sizes)

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
        chosen = range(len(self.token_mask)) if sequence is None else [sequence]
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


def _filled(shape: tuple[int, int], positions: Sequence[Sequence[int]], name: str) -> Tensor:
    """Return (B, S) bool, True at the positions, which are checked."""
    if len(positions) != shape[0]:
        raise OmnisinkError(f"not a sink map: {name} has {len(positions)} lists for {shape[0]} sequences")
    mask = torch.zeros(shape, dtype=torch.bool)
    for b, found in enumerate(positions):
        if outside := [p for p in found if p >= shape[1]]:
            raise OmnisinkError(f"not a sink map: {name} has the position {outside[0]} of {shape[1]} tokens")
        mask[b, list(found)] = True
    return mask


def _sized(shape: tuple[int, int], rows: Sequence[Sequence[float | None]], name: str) -> Tensor:
    """Return (B, S) float32."""
    if [len(row) for row in rows] != [shape[1]] * shape[0]:
        raise OmnisinkError(f"not a sink map: {name} is not of the shape {shape[0]} x {shape[1]}")
    filled = [[float("nan") if value is None else value for value in row] for row in rows]
    return torch.tensor(filled, dtype=torch.float32).reshape(shape)
