"""Where the sinks of a prompt are: layer by layer, sequence by sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError, shown
from omnisink.methods.sinkmap_file import LARGEST, plain_criterion, read_fields, write_fields
from omnisink.methods.sinkmap_views import columns_of, draw, in_brief, in_html, table_of
from omnisink.results.disk import atomic_write
from omnisink.results.frames import data_frame
from omnisink.results.reading import read_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from omnisink.models.adapters.spans import Span


@dataclass(frozen=True, eq=False, repr=False)
class SinkMap:
    """The sinks of a batch of prompts.

    It works like a mapping of layers: ``len(sinks)``, ``sinks[12]``, ``12 in sinks`` and ``for layer in sinks`` speak
    of the examined layers. Two maps are equal if they say the same, on whatever device.

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

    def __len__(self) -> int:
        """Return how many layers were examined."""
        return len(self.masks)

    def __bool__(self) -> bool:
        """Say that it is a map, also where nothing was examined."""
        return True

    def __iter__(self) -> Iterator[int]:
        """Iterate over the examined layers, ascending."""
        return iter(self.examined)

    def __contains__(self, layer: object) -> bool:
        """Say whether a layer was examined."""
        return layer in self.masks

    def __getitem__(self, layer: int) -> Tensor:
        """Return the sinks of one layer, (B, S) bool; the same as `mask`."""
        if isinstance(layer, slice) or not hasattr(layer, "__index__"):
            raise OmnisinkError(f"a sink map is indexed by the number of one layer, got {shown(layer)}")
        return self.mask(int(layer))

    def __eq__(self, other: object) -> bool:
        """Compare with another map: layers, marks, padding, activations and the criterion."""
        if not isinstance(other, SinkMap):
            return NotImplemented
        return (
            _same(self.masks, other.masks)
            and torch.equal(self.token_mask.cpu(), other.token_mask.cpu())
            and _same(self.magnitudes, other.magnitudes)
            and plain_criterion(self.criterion) == plain_criterion(other.criterion)
        )

    __hash__ = None  # type: ignore[assignment]  # Equal maps can be of tensors that change.

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
        return write_fields(self, tokens)

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
        return cls(*read_fields(text, "not a sink map"))

    def save(self, path: str | Path, tokens: Sequence[Sequence[str]] | Sequence[str] | None = None) -> Path:
        """Write the map to a file, as `to_json` has it.

        Parameters
        ----------
        path : str or Path
            The file; one that is there is replaced.
        tokens : sequence of str, or one such sequence for each sequence, optional
            Token texts to write along.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OmnisinkError
            If it cannot be written.
        """
        atomic_write(Path(path), (self.to_json(tokens) + "\n").encode(errors="backslashreplace"))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> SinkMap:
        """Read a map that `save`, or ``omnisink find --json FILE``, wrote.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        SinkMap
            With tensors on the CPU; equal to the one that was saved.

        Raises
        ------
        OmnisinkError
            If the file cannot be read or is not a sink map.
        """
        return cls(*read_fields(read_whole(path, LARGEST), f"{path} is not a sink map"))

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
        return table_of(self, tokens, sequence)

    def to_dataframe(
        self,
        tokens: Sequence[Sequence[str]] | Sequence[str] | None = None,
        *,
        only_sinks: bool = True,
    ) -> pd.DataFrame:
        """Return the map as a table of pandas.

        Parameters
        ----------
        tokens : sequence of str, or one such sequence for each sequence, optional
            Token texts, for a column ``token``.
        only_sinks : bool
            One row for each sink of each layer. False has one for every token of each examined layer but padding, with
            ``sink`` saying which are.

        Returns
        -------
        DataFrame
            Columns ``sequence``, ``layer``, ``position``, ``sink``, ``magnitude`` (largest |h|; NaN where none was
            recorded), and ``token`` where texts are given.

        Raises
        ------
        OmnisinkError
            If pandas is not installed.
        """
        return data_frame(columns_of(self, tokens, only_sinks))

    def plot(
        self,
        tokens: Sequence[str] | None = None,
        *,
        spans: Sequence[Span] | None = None,
        sequence: int = 0,
        positions: Sequence[int] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw one sequence with Matplotlib: layers upward, tokens along, sinks outlined.

        Colour is the largest activation of a token, on a log scale, where it was recorded, as `find_sinks` does.

        Parameters
        ----------
        tokens : sequence of str, optional
            (S,) texts of the sequence's tokens; they are drawn where there are few enough.
        spans : sequence of Span, optional
            The sequence's spans, as ``loaded.spans(inputs)[0]``, for a strip of modalities.
        sequence : int
            Which sequence.
        positions : sequence of int, optional
            Token positions to draw, to look closer; None is all but padding.
        ax : Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        Axes
            With everything drawn; ``ax.figure.savefig("sinks.pdf")`` keeps it.

        Raises
        ------
        OmnisinkError
            If Matplotlib is not installed, or there is no such sequence or position.
        """
        return draw(self, tokens, spans, sequence, positions, ax)

    def __repr__(self) -> str:
        """Say in one line what was examined and found."""
        return f"SinkMap({in_brief(self)})"

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        return in_html(self)

    def __str__(self) -> str:
        """Draw the table of every sequence."""
        return self.table()


def _same(one: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> bool:
    """Whether two sets of tensors by layer hold the same; NaN is equal to NaN."""
    return one.keys() == other.keys() and all(
        tensor.shape == other[layer].shape
        and torch.allclose(tensor.cpu().float(), other[layer].cpu().float(), rtol=0, atol=0, equal_nan=True)
        for layer, tensor in one.items()
    )
