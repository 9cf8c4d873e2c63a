"""A sink map as JSON: what is written, and the checks of what is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError, shown
from omnisink.results.checking import Range, check
from omnisink.results.reading import parse_object
from omnisink.results.schema import Count

if TYPE_CHECKING:
    from omnisink.methods.sinkmap import SinkMap

_FORMAT = "omnisink.sinkmap.v1"
#: Bytes of a file at most: an activation is written with about twenty.
LARGEST = 2**30
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


def plain_criterion(criterion: Mapping[str, Any]) -> Any:
    """Return a criterion as JSON gives it back."""
    return json.loads(json.dumps(dict(criterion), sort_keys=True, default=str))


def write_fields(sinks: SinkMap, tokens: Sequence[Sequence[str]] | Sequence[str] | None) -> str:
    """Write a map; see `SinkMap.to_json`."""
    batch, length = sinks.token_mask.shape
    sequences = range(batch)
    data: dict[str, Any] = {
        "format": _FORMAT,
        "criterion": dict(sinks.criterion),
        "batch": batch,
        "length": length,
        "padding": [[int(p) for p in (~sinks.token_mask[b]).nonzero().flatten()] for b in sequences],
        "examined": sinks.examined,
        "sinks": {str(layer): [sinks.positions(layer, b) for b in sequences] for layer in sinks.layers},
        "magnitudes": {
            str(layer): [[float(m) if m.isfinite() else None for m in row] for row in recorded.float().cpu()]
            for layer, recorded in sorted(sinks.magnitudes.items())
        },
    }
    if tokens is not None:
        data["tokens"] = [list(row) for row in by_sequence(tokens, sinks.token_mask.shape[1])]
    return json.dumps(data, ensure_ascii=False)


def read_fields(text: str | bytes, what: str) -> tuple[dict[int, Tensor], Tensor, dict[str, Any], dict[int, Tensor]]:
    """Read the fields of a `SinkMap`, in order.

    Parameters
    ----------
    text : str or bytes
        The JSON.
    what : str
        What an error begins with, as ``"not a sink map"``.

    Raises
    ------
    OmnisinkError
        As `SinkMap.from_json`.
    """
    data = parse_object(text, what)
    if data.get("format", _FORMAT) != _FORMAT:
        raise OmnisinkError(f"unknown sink map format {shown(data['format'])}, expected {_FORMAT!r}")
    check(data, _Form, what)
    # Before anything of that size is made.
    shape, examined = (data["batch"], data["length"]), data["examined"]
    if shape[0] * shape[1] > _TOKENS or shape[0] * shape[1] * len(examined) > _MARKS:
        raise OmnisinkError(
            f"{what}: it is too large, {len(examined):,d} layers of {shape[0]:,d} x {shape[1]:,d} tokens"
        )
    if len(set(examined)) < len(examined):
        raise OmnisinkError(f"{what}: examined names a layer twice")
    for name in ("sinks", "magnitudes"):
        if unknown := [key for key in data[name] if not key.isdecimal() or int(key[:6]) not in examined]:
            raise OmnisinkError(f"{what}: {name} has {shown(unknown[0])}, which is no layer of examined")
    token_mask = ~_filled(shape, data["padding"], "padding", what)
    nothing: list[list[int]] = [[]] * shape[0]
    masks = {k: _filled(shape, data["sinks"].get(str(k), nothing), f"sinks.{k}", what) for k in examined}
    sizes = {int(k): _sized(shape, rows, f"magnitudes.{k}", what) for k, rows in data["magnitudes"].items()}
    return masks, token_mask, data["criterion"], sizes


def by_sequence(tokens: Sequence[Any], length: int) -> Sequence[Sequence[str]]:
    """Return the texts of every sequence, one for each token; a plain list is that of one."""
    rows = [tokens] if isinstance(tokens, list | tuple) and tokens and isinstance(tokens[0], str) else tokens
    if (
        not isinstance(rows, list | tuple)
        or not rows
        or not all(isinstance(row, list | tuple) and len(row) == length for row in rows)
    ):
        raise OmnisinkError(
            f"tokens must be a list of texts, one for each of the {length} tokens, got {shown(tokens)}"
        )
    return rows


def _filled(shape: tuple[int, int], positions: Sequence[Sequence[int]], name: str, what: str) -> Tensor:
    """Return (B, S) bool, True at the positions, which are checked."""
    if len(positions) != shape[0]:
        raise OmnisinkError(f"{what}: {name} has {len(positions)} lists of positions for {shape[0]} sequences")
    mask = torch.zeros(shape, dtype=torch.bool)
    for b, found in enumerate(positions):
        if outside := [p for p in found if p >= shape[1]]:
            raise OmnisinkError(f"{what}: {name} has the position {outside[0]} of {shape[1]} tokens")
        mask[b, list(found)] = True
    return mask


def _sized(shape: tuple[int, int], rows: Sequence[Sequence[float | None]], name: str, what: str) -> Tensor:
    """Return (B, S) float32."""
    if [len(row) for row in rows] != [shape[1]] * shape[0]:
        raise OmnisinkError(f"{what}: {name} is not of the shape {shape[0]} x {shape[1]}")
    filled = [[float("nan") if value is None else value for value in row] for row in rows]
    return torch.tensor(filled, dtype=torch.float32).reshape(shape)
