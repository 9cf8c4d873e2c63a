"""Principal components of an item's tokens: those of the values and streams that a pass of the model really has."""

from __future__ import annotations

import pytest
import torch

from omnisink.maths.geometry import principal_components
from omnisink.questions.items import Item
from omnisink.study.components import component_layers, measure_components
from omnisink.study.item_measurements import ItemMeasurements
from omnisink.study.item_runner import item_runner

PASSAGE = "Wa stone lies in the grass"


def test_components_are_those_of_the_values_and_residual_streams(tiny):
    with item_runner(tiny, Item("p", passage=PASSAGE, cluster="p")) as runner:
        made = measure_components(ItemMeasurements(runner, None))
        inputs = runner.inputs
    assert made["sinks"] == [0]
    assert [panel["layer"] for panel in made["values"]] == [0, 1]
    assert [panel["layer"] for panel in made["residual_streams"]] == [0, 1]
    with torch.inference_mode():
        cache = tiny.model(**inputs, use_cache=True, output_hidden_states=True)
    for panel in made["values"]:
        values = cache.past_key_values.layers[panel["layer"]].values[0]
        same(panel, values.transpose(0, 1).reshape(values.shape[1], -1))
    for panel in made["residual_streams"]:
        stream = cache.hidden_states[panel["layer"]][0]
        same(panel, stream / stream.square().mean(dim=-1, keepdim=True).sqrt())


def same(panel, vectors):
    places, explained, origin = principal_components(vectors)
    assert panel["x"] == pytest.approx(places[:, 0].tolist(), abs=1e-3)
    assert panel["explained"] == pytest.approx(explained.tolist(), abs=1e-3)
    assert panel["origin"] == pytest.approx(origin.tolist(), abs=1e-3)
    assert len(panel["y"]) == len(vectors)


def test_the_layers_show_the_tokens_before_with_and_after(tiny):
    with item_runner(tiny, Item("p", passage="a stone lies in the grass", cluster="p")) as runner:
        measurements = ItemMeasurements(runner, None)
        assert not measurements.sinks().layers
        assert component_layers(measurements) == [0, 1]
        assert measure_components(measurements)["sinks"] == []
