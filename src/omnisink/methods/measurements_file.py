"""A recording as two files, arrays and their names, and the checks of what is read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from omnisink.errors import OmnisinkError, shown
from omnisink.methods.measured import MEASURED, PARTS
from omnisink.results.arrays import read_arrays
from omnisink.results.checking import check
from omnisink.results.disk import atomic_write
from omnisink.results.reading import parse_object, read_whole
from omnisink.results.schema import Count

if TYPE_CHECKING:
    from omnisink.methods.measurements import Recording

_FORMAT = "omnisink.recording.v1"
#: Bytes of the names of a recording at most.
_LARGEST_LABELS = 2**26


class _Labels(TypedDict):
    """The ``.json`` file of a recording."""

    format: str
    layers: list[Count]
    sets: list[str]
    criteria: list[dict[str, Any]]
    facts: dict[str, Any]


def labels_of(recording: Recording) -> dict[str, Any]:
    """Return all but the arrays, as the ``.json`` file has it."""
    return {
        "format": _FORMAT,
        "layers": list(recording.layers),
        "sets": list(recording.sets),
        "parts": list(PARTS),
        "criteria": [dict(criterion) for criterion in recording.criteria],
        "arrays": {n: {"dims": list(recording.dims(n)), "what": MEASURED[n][1]} for n in sorted(recording.arrays)},
        "facts": dict(recording.facts),
    }


def write_recording(recording: Recording, path: str | Path) -> tuple[Path, Path]:
    """Write both files; see `Recording.save`."""
    base = Path(path).with_suffix("") if Path(path).suffix in (".npz", ".json") else Path(path)
    data, names = base.with_name(base.name + ".npz"), base.with_name(base.name + ".json")
    try:
        text = json.dumps(labels_of(recording), ensure_ascii=False, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OmnisinkError(f"cannot write {names}: its facts or criteria are not plain data: {error}") from error
    arrays: dict[str, Any] = {"real": recording.token_mask, **recording.arrays}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    atomic_write(data, packed.getvalue())
    atomic_write(names, f"{text}\n".encode(errors="backslashreplace"))
    return data, names


def read_recording(kind: type[Recording], path: str | Path) -> Recording:
    """Read both files; see `Recording.load`."""
    base = Path(path).with_suffix("") if Path(path).suffix in (".npz", ".json") else Path(path)
    what = f"{base} is not a recording"
    names = base.with_name(base.name + ".json")
    try:
        content = read_whole(names, _LARGEST_LABELS)
    except OmnisinkError as error:
        raise OmnisinkError(f"{what}: {error}") from error
    labels = parse_object(content, what)
    if labels.get("format", _FORMAT) != _FORMAT:
        raise OmnisinkError(f"{base}: unknown format {shown(labels['format'])}, expected {_FORMAT!r}")
    check(labels, _Labels, what)
    arrays = read_arrays(base.with_name(base.name + ".npz"), what)
    if "real" not in arrays:
        raise OmnisinkError(f"{what}: it lacks the array 'real'")
    made = kind(arrays, labels["layers"], labels["sets"], labels["criteria"], arrays.pop("real"), labels["facts"])
    if wrong := _misfit(made):
        raise OmnisinkError(f"{what}: {wrong}")
    return made


def _misfit(made: Recording) -> str | None:
    """Say what of the arrays does not fit the labels; None where all does."""
    if made.token_mask.ndim != 2 or made.token_mask.dtype != np.bool_:
        return f"real is of the shape {made.token_mask.shape} and type {made.token_mask.dtype}, not (B, S) bool"
    wanted = {
        "sequence": made.token_mask.shape[0],
        "layer": len(made.layers),
        "token": made.token_mask.shape[1],
        "set": len(made.sets),
        "criterion": len(made.criteria),
        "part": len(PARTS),
    }
    for name, array in made.arrays.items():
        if name not in MEASURED:
            return f"the array {shown(name)} is none that is measured"
        dims = made.dims(name)
        sizes = [wanted.get(dim, size) for dim, size in zip(dims, array.shape, strict=False)]
        if array.ndim != len(dims) or list(array.shape) != sizes:
            return f"{name} is of the shape {array.shape}, which does not fit {', '.join(dims)}"
        if array.dtype.kind not in "bif":
            return f"{name} holds {array.dtype}, not numbers"
    return None
