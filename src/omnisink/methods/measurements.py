"""What a recorder measured, as labelled arrays that can be saved without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnisink.errors import OmnisinkError, shown
from omnisink.methods.sinkmap import SinkMap
from omnisink.methods.trace import Record
from omnisink.results.arrays import read_arrays
from omnisink.results.checking import check
from omnisink.results.disk import atomic_write
from omnisink.results.reading import parse_object, read_whole
from omnisink.results.schema import Count

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


#: Every measurement, its dimensions after ``sequence`` and ``layer``, and what it is. Means run over real tokens that
#: are no sink, except where it says otherwise. Where a layer has no sink, what speaks of one is NaN.
MEASURED: dict[str, tuple[tuple[str, ...], str]] = {
    "marked": (("criterion", "token"), "tokens that each criterion marks"),
    "magnitude": (("token",), "largest |h| of each token as it enters the layer"),
    "channel_peak": (("channel",), "largest |h| / RMS of any token"),
    "mass": (("head", "set"), "mean attention to each set"),
    "mass_by_token": (("set", "token"), "attention of each token to each set, mean over heads"),
    "received": (("token",), "attention each token receives from those that can see it, mean over them and heads"),
    "received_most": (("head",), "largest mean attention that one token receives"),
    "received_where": (("head",), "the token that receives it"),
    "split_error": ((), "largest |o_sink + o_rest - o| relative to the largest |o|, on a sample of rows"),
    "sink_share": (("head",), "mean of o_sink . o / |o|^2: the sinks' share of the head output"),
    "sink_norm_ratio": (("head",), "mean of |o_sink| / |o|"),
    "parallel": (("part", "head"), "mean pairwise cosine across tokens of o, o_sink and o_rest"),
    "key_norm": (("kv_head", "token"), "length of each key after position encoding"),
    "value_norm": (("kv_head", "token"), "length of each value"),
    "sink_key": (("kv_head", "depth"), "mean key of the sinks"),
    "sink_value": (("kv_head", "value_depth"), "mean value of the sinks"),
    "query_cosine": (("head",), "mean cosine of queries and the mean sink key"),
    "other_cosine": (("head",), "mean cosine of queries and the mean key of all other tokens"),
    "sink_query": (("token",), "where the first sink's query looks, seeing the whole prompt, mean over heads"),
    "last_query": (("token",), "where the last token's query looks, mean over heads"),
}
PARTS = ("whole", "sink", "rest")


@dataclass(frozen=True, eq=False)
class Recording:
    """Measurements of a batch of prompts.

    Attributes
    ----------
    arrays : dict of str to ndarray
        By name; dimensions are ``sequence``, ``layer`` and those of `MEASURED`.
    layers : list of int
        The layers that were measured; the index along ``layer`` is a position in this list.
    sets : list of str
        Names along ``set``: the criteria first.
    criteria : list of dict
        Name and settings along ``criterion``.
    token_mask : ndarray of bool
        (B, S), False at padding.
    facts : dict
        Whatever else the result should carry: model, versions, prompt.
    """

    arrays: Mapping[str, NDArray[Any]]
    layers: Sequence[int]
    sets: Sequence[str]
    criteria: Sequence[Mapping[str, Any]]
    token_mask: NDArray[np.bool_]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, sets: Sequence[str], criteria: Sequence[Mapping[str, Any]]) -> Recording:
        """Gather what a recorder left in the record of a prefill.

        Parameters
        ----------
        record : Record
            Of the prefill.
        sets : sequence of str
            Names of the measured sets.
        criteria : sequence of dict
            The criteria.

        Returns
        -------
        Recording
            With NumPy arrays. Layers whose attention was not reached are left out. Where layers differ in the number
            or the width of their heads, the smaller are filled up with NaN.

        Raises
        ------
        OmnisinkError
            If nothing was measured.
        """
        measured = record.measured
        if "mass" not in measured:
            raise OmnisinkError("nothing was recorded: no prompt was run, or no layer of it was measured")
        layers = sorted(measured["mass"])
        stacked = {
            name: _side_by_side([by_layer[layer].cpu() for layer in layers]).numpy()
            for name, by_layer in {**measured, "magnitude": record.magnitudes}.items()
        }
        token_mask = (
            torch.ones(record.batch, record.length, dtype=torch.bool)
            if record.token_mask is None
            else record.token_mask.cpu()
        )
        return cls(stacked, layers, list(sets), list(criteria), token_mask.numpy())

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return one measurement, (sequence, layer, ...)."""
        if name not in self.arrays:
            raise OmnisinkError(f"{name!r} was not recorded; there are {', '.join(sorted(self.arrays))}")
        return self.arrays[name]

    def dims(self, name: str) -> tuple[str, ...]:
        """Name the dimensions of one measurement."""
        return ("sequence", "layer", *MEASURED[name][0])

    def mass_on(self, name: str) -> NDArray[np.float32]:
        """Return the mean attention to one set, (sequence, layer, head)."""
        if name not in self.sets:
            raise OmnisinkError(f"no set is called {name!r}; there are {', '.join(self.sets)}")
        mass: NDArray[np.float32] = self["mass"][..., list(self.sets).index(name)]
        return mass

    def sinks(self, criterion: int = 0) -> SinkMap:
        """Return what one criterion marked, with the activations."""
        marked, size = torch.from_numpy(self["marked"]), torch.from_numpy(self["magnitude"])
        return SinkMap(
            {layer: marked[:, i, criterion] for i, layer in enumerate(self.layers)},
            torch.from_numpy(self.token_mask),
            self.criteria[criterion],
            {layer: size[:, i] for i, layer in enumerate(self.layers)},
        )

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write one compressed ``.npz`` file of the arrays and one ``.json`` file of their names.

        Parameters
        ----------
        path : str or Path
            Without a suffix, or with either.

        Returns
        -------
        tuple of Path
            Both files.

        Raises
        ------
        OmnisinkError
            If they cannot be written, or if the facts are not plain data.
        """
        base = Path(path).with_suffix("") if Path(path).suffix in (".npz", ".json") else Path(path)
        data, names = base.with_name(base.name + ".npz"), base.with_name(base.name + ".json")
        labels = {
            "format": _FORMAT,
            "layers": list(self.layers),
            "sets": list(self.sets),
            "parts": list(PARTS),
            "criteria": list(self.criteria),
            "arrays": {n: {"dims": self.dims(n), "what": MEASURED[n][1]} for n in sorted(self.arrays)},
            "facts": dict(self.facts),
        }
        try:
            text = json.dumps(labels, ensure_ascii=False, indent=1, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise OmnisinkError(f"cannot write {names}: its facts or criteria are not plain data: {error}") from error
        arrays: dict[str, Any] = {"real": self.token_mask, **self.arrays}
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
        atomic_write(data, packed.getvalue())
        atomic_write(names, f"{text}\n".encode(errors="backslashreplace"))
        return data, names

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
            As given to `save`.

        Returns
        -------
        Recording
            Equal arrays and labels.

        Raises
        ------
        OmnisinkError
            If a file is missing or is not a recording.
        """
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
        made = cls(arrays, labels["layers"], labels["sets"], labels["criteria"], arrays.pop("real"), labels["facts"])
        if wrong := made._misfit():
            raise OmnisinkError(f"{what}: {wrong}")
        return made

    def _misfit(self) -> str | None:
        """Say what of the arrays does not fit the labels; None where all does."""
        if self.token_mask.ndim != 2 or self.token_mask.dtype != np.bool_:
            return f"real is of the shape {self.token_mask.shape} and type {self.token_mask.dtype}, not (B, S) bool"
        wanted = {
            "sequence": self.token_mask.shape[0],
            "layer": len(self.layers),
            "token": self.token_mask.shape[1],
            "set": len(self.sets),
            "criterion": len(self.criteria),
            "part": len(PARTS),
        }
        for name, array in self.arrays.items():
            if name not in MEASURED:
                return f"the array {shown(name)} is none that is measured"
            dims = self.dims(name)
            sizes = [wanted.get(dim, size) for dim, size in zip(dims, array.shape, strict=False)]
            if array.ndim != len(dims) or list(array.shape) != sizes:
                return f"{name} is of the shape {array.shape}, which does not fit {', '.join(dims)}"
            if array.dtype.kind not in "bif":
                return f"{name} holds {array.dtype}, not numbers"
        return None


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """Stack what was measured at each layer, (B, layer, ...); layers of one model need not have the same heads."""
    shape = torch.Size(max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True))
    if any(t.shape != shape for t in tensors):
        tensors = [_filled(t, shape) for t in tensors]
    return torch.stack(list(tensors), dim=1)


def _filled(tensor: Tensor, shape: torch.Size) -> Tensor:
    wide = tensor.new_full(shape, float("nan") if tensor.is_floating_point() else -1)
    wide[tuple(slice(n) for n in tensor.shape)] = tensor
    return wide
