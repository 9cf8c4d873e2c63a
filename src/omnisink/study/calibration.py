"""What is learned from a few items before the questions are asked: sink dimensions, and mean sink values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnisink.errors import OmnisinkError, UnsupportedModelError, reason, shown
from omnisink.methods.criteria import SinkDimension
from omnisink.methods.measure import record
from omnisink.methods.measurements import Recording
from omnisink.models.loaded import Loaded
from omnisink.questions.items import Item
from omnisink.results.arrays import read_arrays
from omnisink.results.checking import check
from omnisink.results.disk import os_errors_named
from omnisink.results.reading import parse_object
from omnisink.results.schema import Count, Share
from omnisink.study.item_runner import item_runner

#: A channel is a sink dimension if some token reaches this number of times its root mean square in it (Kang et al.,
#: 2025) ...
THRESHOLD = 20.0
#: ... at one examined layer at least, in this share of the prompts.
SHARE = 0.5
#: Tokens of one layer that are still exceptions, and the share of a prompt that is.
CROWD, CROWD_SHARE = 10, 0.05
_FORMAT = "omnisink.calibration.v1"


class _Channel(TypedDict):
    channel: Count
    prompts: Share
    peak: float
    chosen: bool


class _Needed(TypedDict):
    format: str
    channels: list[_Channel]
    items: Count


class _About(_Needed, total=False):
    """The part of a calibration's file that is not arrays; those of earlier versions name no crowded layers."""

    crowded: list[Count]


@dataclass(frozen=True)
class Calibration:
    """What the calibration items say of a model.

    Attributes
    ----------
    channels : list of dict
        For every channel in question: ``channel``, ``prompts`` (share in which it exceeds the threshold), ``peak``
        (mean over prompts of the largest ``|h| / RMS``), ``chosen``.
    values : dict of int to Tensor
        For every layer with a sink in some prompt, the mean sink value, (K, D') float32.
    items : int
        How many items were used.
    crowded : tuple of int
        Layers at which too many tokens are massive, in half of the prompts, to be exceptions, and so sinks:
        more than `CROWD` tokens, and more than `CROWD_SHARE` of all.
    """

    channels: Sequence[Mapping[str, Any]]
    values: Mapping[int, Tensor]
    items: int
    crowded: tuple[int, ...] = ()

    @property
    def dimension(self) -> SinkDimension | None:
        """The sink-dimension criterion with the channels found; None if there are none."""
        found = tuple(int(c["channel"]) for c in self.channels if c["chosen"])
        return SinkDimension(found, THRESHOLD) if found else None

    def save(self, path: Path) -> None:
        """Write it as ``.npz``, in one step."""
        about = {
            "format": _FORMAT,
            "channels": list(self.channels),
            "items": self.items,
            "crowded": list(self.crowded),
        }
        arrays: dict[str, Any] = {f"value_{layer}": value.numpy() for layer, value in self.values.items()}
        part = path.with_suffix(".part")
        with os_errors_named(path, "written"):
            with part.open("wb") as file:
                np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
            part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        OmnisinkError
            If the file is not a calibration.
        """
        what = f"{path} is not a calibration"
        arrays = read_arrays(path, what)
        about = parse_object(str(arrays.pop("about", "")), what)
        check(about, _About, what)
        if about["format"] != _FORMAT:
            raise OmnisinkError(f"{what}: unknown format {shown(about['format'])}")
        values = {}
        for name, array in arrays.items():
            if not (name.startswith("value_") and name[6:].isdecimal() and array.dtype.kind == "f"):
                raise OmnisinkError(f"{what}: the array {shown(name)} is none of it")
            values[int(name[6:])] = torch.from_numpy(array)
        return cls(about["channels"], values, about["items"], tuple(about.get("crowded", ())))


def calibrate(loaded: Loaded, items: Sequence[Item], progress: Callable[[Item], None] | None = None) -> Calibration:
    """Record the sinks of some items.

    Parameters
    ----------
    loaded : Loaded
        The model.
    items : sequence of Item
        At least one.
    progress : callable, optional
        Called with every item as it is done.

    Returns
    -------
    Calibration
        Sink dimensions and mean sink values, of the items that could be run.

    Raises
    ------
    OmnisinkError
        If none could.
    """
    peaks: list[NDArray[np.float32]] = []
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    crowds: dict[int, int] = {}
    failed: list[str] = []
    for item in items:
        try:
            with item_runner(loaded, item) as runner, runner.measuring():
                made = record(loaded, runner.inputs, received=False)
        except UnsupportedModelError:
            raise
        except Exception as error:  # The study names it when it comes to it, and goes on without it too.
            failed.append(reason(error))
            continue
        peak = _peaks(made)
        if not np.isfinite(peak).all():
            failed.append(f"{item.id}: its states are not finite numbers")
            continue
        peaks.append(peak)
        for layer, mask in made.sinks(0).masks.items():
            crowds[layer] = crowds.get(layer, 0) + (int(mask.sum()) > max(CROWD, CROWD_SHARE * mask.shape[1]))
        for row, layer in enumerate(made.layers):
            value = torch.from_numpy(made["sink_value"][0, row])
            if not bool(value.isnan().any()):
                sums[layer] = sums.get(layer, torch.zeros_like(value)) + value
                counts[layer] = counts.get(layer, 0) + 1
        if progress is not None:
            progress(item)
    if not peaks:
        raise OmnisinkError(f"no item could be run, of those that the calibration is made of. The first: {failed[0]}")
    values = {layer: total / counts[layer] for layer, total in sums.items()}
    crowded = tuple(sorted(layer for layer, prompts in crowds.items() if prompts >= SHARE * len(peaks)))
    return Calibration(_channels(np.stack(peaks)), values, len(peaks), crowded)


def _peaks(made: Recording) -> NDArray[np.float32]:
    """Return each channel's largest ``|h| / RMS`` over tokens and the layers at which sinks are looked for, (d,)."""
    rows = [row for row, layer in enumerate(made.layers) if layer <= made.layers[-1] - 2]
    peaks: NDArray[np.float32] = made["channel_peak"][0, rows].max(axis=0)
    return peaks


def _channels(peaks: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Describe the channels with the largest peaks, (prompts, d): the chosen ones, and eight for comparison."""
    prompts, peak = (peaks >= THRESHOLD).mean(axis=0), peaks.mean(axis=0)
    shown = set(np.argsort(-peak)[:8].tolist()) | set(np.flatnonzero(prompts >= SHARE).tolist())
    return [
        {
            "channel": int(c),
            "prompts": float(prompts[c]),
            "peak": float(peak[c]),
            "chosen": bool(prompts[c] >= SHARE),
        }
        for c in sorted(shown, key=lambda c: -peak[c])
    ]
