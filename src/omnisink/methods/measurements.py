"""What a recorder measured, as labelled arrays that can be saved without pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnisink.errors import OmnisinkError, shown
from omnisink.methods.block_records import Record
from omnisink.methods.measured import MEASURED, PARTS
from omnisink.methods.measurements_file import labels_of, read_recording, write_recording
from omnisink.methods.measurements_views import columns_of, draw, in_brief, in_html
from omnisink.methods.sinkmap import SinkMap
from omnisink.results.frames import data_frame

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["MEASURED", "PARTS", "Recording"]


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Measurements of a batch of prompts.

    ``recording["mass"]`` is one measurement at every layer, ``recording[12]`` all measurements at layer 12, and
    ``len(recording)`` the number of layers.

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

    def __len__(self) -> int:
        """Return how many layers were measured."""
        return len(self.layers)

    def __bool__(self) -> bool:
        """Say that it is a recording, also where no layer was measured."""
        return True

    def __eq__(self, other: object) -> bool:
        """Compare arrays and labels with those of another recording; NaN is equal to NaN."""
        if not isinstance(other, Recording):
            return NotImplemented
        return (
            self.arrays.keys() == other.arrays.keys()
            and all(_same(array, other.arrays[name]) for name, array in self.arrays.items())
            and _same(self.token_mask, other.token_mask)
            and labels_of(self) == labels_of(other)
        )

    __hash__ = None  # type: ignore[assignment]  # Equal recordings can be of arrays that change.

    @overload
    def __getitem__(self, name: str) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, name: int) -> dict[str, NDArray[Any]]: ...

    def __getitem__(self, name: str | int) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """Return one measurement, (sequence, layer, ...), or by its number a layer: each measurement without `layer`.

        Raises
        ------
        OmnisinkError
            If there is no such measurement or layer.
        """
        if not isinstance(name, str):
            if name not in self.layers:
                layers = f"{self.layers[0]} to {self.layers[-1]}" if self.layers else "none"
                raise OmnisinkError(f"layer {shown(name)} was not measured (measured: {layers})")
            row = list(self.layers).index(name)
            return {measured: array[:, row] for measured, array in self.arrays.items()}
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
        return write_recording(self, path)

    def to_dataframe(self, name: str = "mass") -> pd.DataFrame:
        """Return one measurement as a table of pandas, a row for each of its numbers.

        Parameters
        ----------
        name : str
            A measurement; see `MEASURED`.

        Returns
        -------
        DataFrame
            A column for each dimension, and one of the measurement's name for the number. Layers have their own
            numbers, sets, criteria and parts their names. Padding is left out.

        Raises
        ------
        OmnisinkError
            If there is no such measurement, or pandas is not installed.
        """
        return data_frame(columns_of(self, name))

    def plot(
        self,
        what: Literal["heads", "modality", "sinks"] = "heads",
        *,
        on: str | None = None,
        sequence: int = 0,
        ax: Axes | None = None,
        **options: Any,
    ) -> Axes:
        """Draw one sequence with Matplotlib.

        Parameters
        ----------
        what : {"heads", "modality", "sinks"}
            ``"heads"`` is a heat map of layers and heads: the attention mass on a set. ``"modality"`` is the attention
            to each modality over the layers, the part on sinks hatched; `record` needs ``spans=`` for it. ``"sinks"``
            is the sink map.
        on : str, optional
            Which set, for ``"heads"``; None is what the first criterion marks.
        sequence : int
            Which sequence.
        ax : Axes, optional
            Where to draw; None makes a figure.
        **options
            For ``"sinks"``: those of `SinkMap.plot`.

        Returns
        -------
        Axes
            With everything drawn.

        Raises
        ------
        OmnisinkError
            If Matplotlib is not installed, there is no such picture, set or sequence, or no modality was recorded.
        """
        if not 0 <= sequence < len(self.token_mask):
            raise OmnisinkError(
                f"there is no sequence {sequence}: the recording has sequences 0 to {len(self.token_mask) - 1}"
            )
        if what == "sinks":
            return self.sinks().plot(sequence=sequence, ax=ax, **options)
        return draw(self, what, on, sequence, ax)

    def __repr__(self) -> str:
        """Say in one line what was measured."""
        return f"Recording({in_brief(self)})"

    def _repr_html_(self) -> str:
        """Show the measurements and their shapes in a notebook."""
        return in_html(self, {name: what for name, (_, what) in MEASURED.items()})

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
        return read_recording(cls, path)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")


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
