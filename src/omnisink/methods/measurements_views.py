"""A recording as it is looked at: in a line, as a table of HTML and of pandas, and as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from omnisink.errors import OmnisinkError
from omnisink.methods.measured import PARTS
from omnisink.results.frames import html_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from omnisink.methods.measurements import Recording

#: After the name of a set: those of its tokens that are sinks at the layer.
ON_SINKS = ": sinks"


def in_brief(recording: Recording) -> str:
    """Say in one line how much was measured, and the names of the sets."""
    batch, length = recording.token_mask.shape
    heads = recording.arrays["mass"].shape[2] if "mass" in recording.arrays else 0
    asked = f"1 sequence of {length} tokens" if batch == 1 else f"{batch} sequences of up to {length} tokens"
    return (
        f"{asked}, {len(recording)} layers, {heads} heads; {len(recording.arrays)} measurements; "
        f"attention mass on: {', '.join(recording.sets)}"
    )


def in_html(recording: Recording, meanings: Mapping[str, str]) -> str:
    """Return the line and a table of the measurements as HTML."""
    rows = [
        (name, ", ".join(recording.dims(name)), " x ".join(map(str, array.shape)), meanings[name])
        for name, array in sorted(recording.arrays.items())
    ]
    return html_table(f"Recording: {in_brief(recording)}", ("measurement", "dimensions", "shape", "what it is"), rows)


def columns_of(recording: Recording, name: str) -> dict[str, Any]:
    """Return the columns of `Recording.to_dataframe`."""
    array, dims = recording[name], recording.dims(name)
    names: dict[str, list[Any]] = {
        "layer": list(recording.layers),
        "set": list(recording.sets),
        "part": list(PARTS),
        "criterion": list(recording.sets[: len(recording.criteria)]),
    }
    kept = np.ones(array.shape, dtype=bool)
    if "token" in dims:
        shape = [size if dim in ("sequence", "token") else 1 for dim, size in zip(dims, array.shape, strict=True)]
        kept &= recording.token_mask.reshape(shape)
    places = dict(zip(dims, np.nonzero(kept), strict=True))
    columns = {dim: np.array(names[dim])[at] if dim in names else at for dim, at in places.items()}
    return {**columns, name: array[kept]}


def draw(recording: Recording, what: str, on: str | None, sequence: int, ax: Axes | None) -> Axes:
    """Draw the attention mass of one sequence by head or by modality; see `Recording.plot`."""
    if what == "heads":
        from omnisink.plotting.heads import draw_heads

        name = recording.sets[0] if on is None else on
        mass, of_criterion = recording.mass_on(name)[sequence], name in recording.sets[: len(recording.criteria)]
        return draw_heads(mass, recording.layers, f"sinks ({name})" if of_criterion else name, ax=ax)
    if what != "modality":
        raise OmnisinkError(f"there is no picture {what!r} of a recording; there are 'heads', 'modality' and 'sinks'")
    named = [name for name in recording.sets if f"{name}{ON_SINKS}" in recording.sets]
    if not named:
        raise OmnisinkError(
            "no modality was recorded: give spans, as record(loaded, inputs, spans=loaded.spans(inputs))"
        )
    from omnisink.plotting.modalities import draw_modalities

    def over_heads(name: str) -> Any:
        return np.nanmean(recording.mass_on(name)[sequence], axis=-1)

    return draw_modalities(
        {name: over_heads(name) for name in named},
        {name: over_heads(f"{name}{ON_SINKS}") for name in named},
        recording.layers,
        ax=ax,
    )
