"""What is learned from a few items before the questions are asked: sink dimensions, and mean sink values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.methods.criteria import SinkDimension
from omnisink.methods.recorder import record
from omnisink.methods.recording import Recording
from omnisink.models.items import Item
from omnisink.models.loaded import Loaded
from omnisink.study.subject import subject_of

#: A channel is a sink dimension if some token reaches so many times its root mean square in it (Kang et al. 2025) ...
THRESHOLD = 20.0
#: ... at one examined layer at least, in so large a share of the prompts.
SHARE = 0.5
_FORMAT = "omnisink.calibration.v1"


@dataclass(frozen=True)
class Calibration:
    """What the calibration items say of a model.

    Attributes
    ----------
    channels : list of dict
        Of every channel in question: ``channel``, ``prompts`` (share in which it exceeds the threshold), ``peak``
        (mean over prompts of the largest ``|h| / RMS``), ``chosen``.
    values : dict of int to Tensor
        For every layer with a sink in some prompt, the mean sink value, (K, D') float32.
    items : int
        How many items were used.
    """

    channels: Sequence[Mapping[str, Any]]
    values: Mapping[int, Tensor]
    items: int

    @property
    def dimension(self) -> SinkDimension | None:
        """The sink-dimension criterion with the channels found; None if there are none."""
        found = tuple(int(c["channel"]) for c in self.channels if c["chosen"])
        return SinkDimension(found, THRESHOLD) if found else None

    def save(self, path: Path) -> None:
        """Write it as ``.npz``, in one step."""
        about = {"format": _FORMAT, "channels": list(self.channels), "items": self.items}
        arrays: dict[str, Any] = {f"value_{layer}": value.numpy() for layer, value in self.values.items()}
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        OmnisinkError
            If the file is no calibration.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["format"] != _FORMAT:
                    raise ValueError(f"unknown format {about['format']!r}")
                values = {int(n[6:]): torch.from_numpy(file[n]) for n in file.files if n.startswith("value_")}
        except (OSError, ValueError, KeyError) as error:
            raise OmnisinkError(f"{path} is not a calibration: {type(error).__name__}: {error}") from error
        return cls(about["channels"], values, about["items"])


def calibrate(loaded: Loaded, items: Sequence[Item], told: Callable[[Item], None] | None = None) -> Calibration:
    """Record the sinks of some items.

    Parameters
    ----------
    loaded : Loaded
        The model.
    items : sequence of Item
        At least one.
    told : callable, optional
        Told every item as it is done.

    Returns
    -------
    Calibration
        Sink dimensions and mean sink values.
    """
    peaks: list[NDArray[np.float32]] = []
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    for item in items:
        with subject_of(loaded, item) as subject, subject.measuring():
            made = record(loaded.model, received=False, **subject.inputs)
        peaks.append(_peaks(made))
        for row, layer in enumerate(made.layers):
            value = torch.from_numpy(made["sink_value"][0, row])
            if not bool(value.isnan().any()):
                sums[layer] = sums.get(layer, torch.zeros_like(value)) + value
                counts[layer] = counts.get(layer, 0) + 1
        if told is not None:
            told(item)
    return Calibration(_channels(np.stack(peaks)), {k: v / counts[k] for k, v in sums.items()}, len(items))


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
