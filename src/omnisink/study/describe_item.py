"""One item in detail: every token with its activations and attention, and the clip it stands for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.methods.measure import criterion_name
from omnisink.models.loaded import Loaded
from omnisink.questions.items import Item
from omnisink.study.components import measure_components
from omnisink.study.item_measurements import ItemMeasurements, plain

#: Longest side of a frame on the page, in pixels, and intervals of the waveform.
_SIDE, _INTERVALS = 160, 400


def describe_item(measurements: ItemMeasurements) -> dict[str, Any]:
    """Describe one item for the page.

    Parameters
    ----------
    measurements : ItemMeasurements
        The item.

    Returns
    -------
    dict
        ``item``, ``question``, ``choices``, ``answer``, ``said``, ``layers``, ``tokens``, ``frames``, ``waveform``,
        and by layer and token ``magnitude``, ``received``, ``sink_query``, ``last_query`` and ``marked``;
        ``components``, see `omnisink.study.components.measure_components`.
    """
    runner, item = measurements.runner, measurements.runner.item
    frames, waveform = _clip(runner.loaded, item)
    times = [frame["time"] for frame in frames]
    tokens = []
    owner = {p: span for span in runner.spans for p in range(span.start, span.stop)}
    for position, text in enumerate(runner.tokens()):
        span = owner.get(position)
        begins, ends = (span.time(position) if span else None) or (None, None)
        tokens.append(
            {
                "text": text,
                "modality": span.modality if span else "text",
                "begins": begins,
                "ends": ends,
                "frame": _frame_at(times, begins),
            }
        )
    sink_query = measurements.by_layer("sink_query")
    marked: dict[str, list[list[int]]] = {}
    for index, criterion in enumerate(measurements.criteria):
        sinks = measurements.sinks(index)
        marked[criterion_name(criterion)] = [[k, p] for k in sinks.layers for p in sinks.positions(k)]
    return {
        "item": item.id,
        "question": item.question if item.passage is None else item.passage,
        "choices": list(item.choices),
        "answer": item.answer,
        "said": runner.base.said,
        "layers": len(measurements.recording.layers),
        "tokens": tokens,
        "frames": frames,
        "waveform": waveform,
        "magnitude": plain(measurements.by_layer("magnitude")),
        "received": plain(measurements.by_layer("received")),
        "marked": marked,
        "sink_query": [None if np.isnan(row).any() else plain(row) for row in sink_query],
        "last_query": plain(measurements.by_layer("last_query")),
        "components": measure_components(measurements),
    }


def _clip(loaded: Loaded, item: Item) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return the frames that the model saw, as small JPEG pictures, and the envelope of the sound."""
    from omnisink.media import read_clip

    frames: list[dict[str, Any]] = []
    sound: NDArray[np.float32] | None = None
    rate = loaded.adapter.audio_rate if item.video or item.audio else 0
    if item.video is not None:
        hears = item.audio is None and "audio" in loaded.adapter.modalities
        clip = read_clip(item.video, frames=loaded.adapter.default_frames(loaded), audio_rate=rate if hears else None)
        assert clip.frames is not None
        assert clip.times is not None
        frames = [
            {"time": round(float(t), 3), "image": _jpeg(f)} for t, f in zip(clip.times, clip.frames, strict=True)
        ]
        sound = clip.audio
    if item.audio:
        sound = read_clip(item.audio, frames=None, audio_rate=rate).audio
    return frames, None if sound is None else _envelope(sound, rate)


def _jpeg(frame: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(frame)
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _envelope(samples: NDArray[np.float32], rate: int) -> dict[str, Any]:
    parts = [part for part in np.array_split(samples, _INTERVALS) if part.size]
    ends = np.cumsum([part.size for part in parts])
    return {
        "seconds": [round(float(end - part.size / 2) / rate, 4) for end, part in zip(ends, parts, strict=True)],
        "low": [round(float(part.min()), 4) for part in parts],
        "high": [round(float(part.max()), 4) for part in parts],
    }


def _frame_at(times: Sequence[float], begins: float | None) -> int | None:
    """Return the last frame that has begun at a time; the first for a time before it."""
    if begins is None or not times:
        return None
    return max(0, int(np.searchsorted(times, begins + 1e-6, side="right")) - 1)
