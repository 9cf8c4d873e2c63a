"""Principal components of one prompt: how values and residual streams of its tokens lie, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.maths.geometry import principal_components
from omnisink.methods.base import Method
from omnisink.results.schema import ComponentsOfLayer, PrincipalComponents
from omnisink.study.item_measurements import ItemMeasurements, plain


@dataclass(frozen=True)
class _KeepValues(Method):
    """Keep the values that some layers attend with, and change nothing."""

    layers: tuple[int, ...]

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Keep the values of one of the layers in a prefill."""
        if context.now.is_prefill and call.layer in self.layers:
            context.record.measured.setdefault("value", {})[call.layer] = call.prompt_values
        return output


def measure_components(measurements: ItemMeasurements) -> PrincipalComponents:
    """Return two principal components of one item's tokens at a few layers.

    Parameters
    ----------
    measurements : ItemMeasurements
        The item.

    Returns
    -------
    dict
        ``sinks``: positions of the tokens that are a sink at one layer at least. ``values`` and ``residual_streams``:
        for each layer ``x`` and ``y`` by token, the share of the variance that either component explains, and where
        the zero vector lies. The values of all key/value heads stand side by side in one vector. Residual streams are
        those that enter the layer, each scaled to a root mean square of one, as a norm scales them before attention;
        unscaled, the first component would be the length of the sink.
    """
    layers = component_layers(measurements)
    runner = measurements.runner
    kept = runner.run(_KeepValues(tuple(layers)), start=layers[0]).recorded if layers else None
    values = {} if kept is None else kept.measured.get("value", {})
    return {
        "sinks": list(measurements.positions.positions),
        "values": [_components(layer, value[0].transpose(0, 1).flatten(1)) for layer, value in sorted(values.items())],
        "residual_streams": [_components(layer, _scaled(runner.residual(layer))) for layer in layers],
    }


def component_layers(measurements: ItemMeasurements) -> list[int]:
    """Return the layer before the first with a sink, the first, the middle and the last one; without sinks, three."""
    marks, measured = measurements.sinks(), list(measurements.recording.layers)
    found = marks.layers
    chosen = {found[0] - 1, found[0], found[len(found) // 2], found[-1]} if found else set()
    if not found and marks.examined:
        chosen = {marks.examined[0], marks.examined[len(marks.examined) // 2], marks.examined[-1]}
    return sorted(chosen & set(measured))


def _scaled(streams: Tensor) -> Tensor:
    """Scale every row of (S, d) to a root mean square of one; a row of zeros stays as it is."""
    wide = streams.float()
    size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) * wide.shape[-1] ** -0.5
    return wide / size.clamp(min=torch.finfo(torch.float32).tiny)


def _components(layer: int, vectors: Tensor) -> ComponentsOfLayer:
    places, explained, origin = (part.cpu().numpy() for part in principal_components(vectors))
    x, y = places.T
    return {"layer": layer, "explained": plain(explained), "origin": plain(origin), "x": plain(x), "y": plain(y)}
