"""The sink map: what it says, how it prints, and that JSON brings it back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink import OmnisinkError, SinkMap, find_sinks
from omnisink.methods.criteria import MassiveActivation, SinkDimension, resolve_criterion
from tests.reference_outro import PEAK, prompt, tiny_llama


def example():
    masks = {layer: torch.zeros(2, 6, dtype=torch.bool) for layer in range(5)}
    for layer in (1, 2, 4):
        masks[layer][0, 0] = True
    masks[3][1, [2, 5]] = True
    token_mask = torch.ones(2, 6, dtype=torch.bool)
    token_mask[1, :2] = False
    return SinkMap(masks, token_mask, {"name": "massive_activation"})


def test_layers_positions_and_masks():
    found = example()
    assert found.examined == [0, 1, 2, 3, 4]
    assert found.layers == [1, 2, 3, 4]
    assert found.positions(1) == [0]
    assert found.positions(3, sequence=1) == [2, 5]
    assert found.mask(3).shape == (2, 6)
    with pytest.raises(OmnisinkError, match="layer 9 .*0 to 4"):
        found.mask(9)


def test_the_table_groups_neighbouring_layers():
    assert example().table(sequence=0).splitlines() == ["layers  positions", "1-2     0", "4       0"]
    assert str(example()).splitlines()[1:] == ["0         1-2     0", "0         4       0", "1         3       2 5"]
    texts = [["<s>", "a", "b", "c", "d", "e"], ["", "", "x\n", "y", "z", "\x1b[31m"]]
    assert "'x\\n' '\\x1b[31m'" in example().table(texts)  # no control character reaches a terminal


def test_a_map_without_sinks_says_so():
    assert str(SinkMap({0: torch.zeros(1, 3, dtype=torch.bool)}, torch.ones(1, 3).bool())) == (
        "no sinks at the 1 layers examined"
    )


@given(seed=st.integers(0, 1000), batch=st.integers(1, 3), length=st.integers(1, 8), sized=st.booleans())
@settings(max_examples=50, deadline=None)
def test_json_brings_a_map_back(seed, batch, length, sized):
    generator = torch.Generator().manual_seed(seed)
    masks = {layer: torch.rand(batch, length, generator=generator) > 0.7 for layer in (0, 3, 12)}
    sizes = {layer: torch.rand(batch, length, generator=generator) * 1e4 for layer in masks} if sized else {}
    token_mask = torch.rand(batch, length, generator=generator) > 0.2
    there = SinkMap(masks, token_mask, {"name": "x", "median_ratio": 3.0}, sizes)
    back = SinkMap.from_json(there.to_json())
    assert back.examined == there.examined
    assert all(torch.equal(back.mask(layer), there.mask(layer)) for layer in masks)
    assert torch.equal(back.token_mask, token_mask)
    assert back.criterion == there.criterion
    assert all(torch.equal(back.magnitudes[layer], m) for layer, m in sizes.items())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "other"}', '{"format": "omnisink.sinkmap.v1", "batch": 1, "length": "x"}'],
)
def test_what_is_not_a_sink_map_is_refused(text):
    with pytest.raises(OmnisinkError):
        SinkMap.from_json(text)


def test_positions_outside_the_prompt_are_refused():
    data = json.loads(example().to_json())
    data["sinks"]["1"] = [[99], []]
    with pytest.raises(OmnisinkError, match="not a sink map"):
        SinkMap.from_json(json.dumps(data))


def test_find_sinks_changes_nothing_and_tells_the_size():
    model = tiny_llama()
    ids = prompt(9, (0, 4))
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        found = find_sinks(model, input_ids=ids)
        assert torch.equal(model(input_ids=ids).logits, before)
    assert found.positions(0) == [0, 4]
    assert found.magnitude(0) == [PEAK, PEAK]
    assert found.criterion == {"name": "massive_activation", "min_activation": 100.0, "median_ratio": 1000.0}
    assert find_sinks(model, input_ids=ids, layers=(5,)).examined == [5]


def test_criteria_by_name_and_by_object():
    model = tiny_llama()
    ids = prompt(9, (0, 4))
    # The peak in channel 5 is nearly all of the token, so that its RMS is peak / sqrt(48): a ratio near 6.9.
    by_name = find_sinks(model, criterion="sink_dimension", channels=[5], input_ids=ids)
    assert by_name.layers == []
    by_object = find_sinks(model, criterion=SinkDimension((5,), threshold=6.5), input_ids=ids)
    assert by_object.positions(0) == [0, 4]
    assert by_object.criterion == {"name": "sink_dimension", "channels": [5], "threshold": 6.5}
    assert find_sinks(model, criterion=MassiveActivation(min_activation=PEAK + 1), input_ids=ids).layers == []


@pytest.mark.parametrize(
    ("criterion", "channels", "match"),
    [("nonsense", None, "unknown"), ("sink_dimension", None, "channels"), ("massive_activation", [1], "channels")],
)
def test_unclear_criteria_are_refused(criterion, channels, match):
    with pytest.raises(ValueError, match=match):
        resolve_criterion(criterion, channels)


def test_criteria_refuse_thresholds_out_of_range():
    with pytest.raises(ValueError, match="min_activation"):
        MassiveActivation(min_activation=-1.0)
    with pytest.raises(ValueError, match="threshold"):
        SinkDimension((1,), threshold=0.0)


PLAIN = {
    "format": "omnisink.sinkmap.v1", "criterion": {}, "batch": 1, "length": 3, "padding": [[]], "examined": [0, 2],
    "sinks": {"0": [[0]]}, "magnitudes": {"0": [[1.0, 2.0, 3.0]]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"batch": float("inf")}, "Infinity is not a number"),
        ({"batch": 10**9, "length": 10**9}, "2 layers of 1,000,000,000 x 1,000,000,000 tokens"),
        ({"length": 2**26, "examined": list(range(64))}, "64 layers of 1 x"),
        ({"batch": -1}, "batch must be a whole number of at least 0, got -1"),
        ({"batch": 1.0}, "batch must be a whole number"),
        ({"batch": True}, "batch must be a whole number"),
        ({"length": "3"}, "length must be a whole number"),
        ({"length": 10**400}, "length must be a whole number"),
        ({"criterion": "x"}, "criterion must be an object, got 'x'"),
        ({"sinks": {"0": [[-1]]}}, "sinks.0.0.0 must be a whole number of at least 0, got -1"),
        ({"sinks": {"0": [[1.7]]}}, "sinks.0.0.0 must be a whole number"),
        ({"sinks": {"0": [[True]]}}, "sinks.0.0.0 must be a whole number"),
        ({"sinks": {"0": [[3]]}}, "sinks.0 has the position 3 of 3 tokens"),
        ({"sinks": {"0": [[0], [0]]}}, "sinks.0 has 2 lists of positions for 1 sequences"),
        ({"sinks": {"1": [[0]]}}, "sinks has '1', which is no layer of examined"),
        ({"sinks": {"x": [[0]]}}, "sinks has 'x', which is no layer of examined"),
        ({"sinks": [[[0]]]}, "sinks must be an object"),
        ({"padding": [[5]]}, "padding has the position 5"),
        ({"padding": []}, "padding has 0 lists"),
        ({"examined": [0, 0]}, "examined names a layer twice"),
        ({"examined": [-1]}, "examined.0 must be a whole number"),
        ({"examined": ["0"]}, "examined.0 must be a whole number"),
        ({"examined": [10**9]}, "examined.0 must be a whole number from 0 to 9999"),
        ({"magnitudes": {"0": [[1.0]]}}, "magnitudes.0 is not of the shape 1 x 3"),
        ({"magnitudes": {"0": [[1.0, 2.0, "x"]]}}, "magnitudes.0.0.2 must be a number or null, got 'x'"),
        ({"magnitudes": {"7": [[1.0, 2.0, 3.0]]}}, "magnitudes has '7'"),
        ({"format": "omnisink.sinkmap.v9"}, "unknown sink map format 'omnisink.sinkmap.v9'"),
        ({"format": 1}, "unknown sink map format 1"),
    ],
)
def test_json_that_makes_no_sense_is_one_line_with_the_field(change: dict[str, Any], why: str) -> None:
    with pytest.raises(OmnisinkError, match=why) as caught:
        SinkMap.from_json(json.dumps({**PLAIN, **change}))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "", '{"a":' * 500 + "1" + "}" * 500, "1" * 10_000, "\ud800"])
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(OmnisinkError, match="not a sink map: "):
        SinkMap.from_json(text)


@pytest.mark.parametrize("lacking", PLAIN)
def test_a_map_that_lacks_a_field(lacking: str) -> None:
    with pytest.raises(OmnisinkError, match=f"it has no '{lacking}'"):
        SinkMap.from_json(json.dumps({name: value for name, value in PLAIN.items() if name != lacking}))


def test_activations_that_are_not_finite_are_null() -> None:
    made = SinkMap.from_json(json.dumps({**PLAIN, "tokens": [["a", "b", "c"]], "by_modality": [1]}))
    assert made.positions(0) == [0]
    odd = SinkMap(made.masks, made.token_mask, {}, {0: torch.tensor([[1.0, float("nan"), float("inf")]])})
    text = odd.to_json()
    assert json.loads(text, parse_constant=pytest.fail)["magnitudes"] == {"0": [[1.0, None, None]]}
    assert SinkMap.from_json(text).magnitudes[0].isnan().tolist() == [[False, True, True]]
