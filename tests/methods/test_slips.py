"""What is easily written in place of `with method(...)(model) as trace:`, and the sentence that answers it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnisink import OmnisinkError, OutRo, find_sinks, load_model, record
from omnisink.methods import ZeroHeads
from omnisink.methods.shipped import shipped_profile


@pytest.fixture(scope="module")
def loaded(llama_folder):
    """Load the tiny Llama with its tokenizer."""
    return load_model(str(llama_folder), device="cpu")


@pytest.fixture(scope="module")
def inputs(loaded) -> dict[str, Any]:
    return dict(loaded.tokenizer("an W?", return_tensors="pt"))


@pytest.mark.parametrize("method", [OutRo(), ZeroHeads([(1, 0)])])
def test_inputs_go_to_the_model(loaded, inputs, method) -> None:
    name = type(method).__name__
    for given, named in (((inputs,), {}), ((), inputs), (("a text",), {}), ((), {"video": "clip.mp4"})):
        with pytest.raises(
            OmnisinkError, match=rf"takes the model only.* with {name}\(\.\.\.\)\(model\) as trace: model"
        ):
            method(loaded.model, *given, **named)
    for given, named in (((inputs,), {}), ((), inputs), ((), {}), ((torch.ones(1, 2),), {})):
        with pytest.raises(OmnisinkError, match=r"takes no inputs: write with .*give them to the model inside it"):
            method(loaded.model)(*given, **named)


@pytest.mark.parametrize("wanted", ["sinks", "relaxed", "generate", "device"])
def test_a_block_is_neither_the_trace_nor_the_model(loaded, wanted) -> None:
    block = OutRo()(loaded.model)
    with pytest.raises(
        AttributeError, match=rf"has no attribute '{wanted}': write with OutRo\(\.\.\.\)\(model\) as trace:"
    ):
        getattr(block, wanted)
    assert not hasattr(block, "_repr_html_")
    assert repr(block) == "<OutRo(...)(model): a block for `with`>"


def test_a_block_is_a_block_and_a_decorator(loaded, inputs) -> None:
    with (block := OutRo(gamma=1.0)(loaded)) as trace:
        asked = loaded.model(**inputs).logits
    assert trace.sinks.positions(0) == [3]
    assert repr(block) == "<method(model): a block for `with`>"

    @OutRo(gamma=1.0)(model=loaded)
    def ask() -> Any:
        return loaded.model(**inputs).logits

    assert torch.equal(ask(), asked)
    assert torch.equal(ask(), asked)
    assert not torch.equal(loaded.model(**inputs).logits, asked)


def test_a_profile_is_a_file(loaded) -> None:
    for given in (loaded.model, loaded, 3, {"gamma": 0.3}, None):
        with pytest.raises(
            OmnisinkError, match=r"OutRo\.from_profile\(\.\.\.\) takes the file that `omnisink tune` wrote"
        ):
            OutRo.from_profile(given)
    path = shipped_profile("smolomni")
    assert path is not None
    with pytest.warns(UserWarning, match="was tuned for smolomni"):
        OutRo.from_profile(path, loaded)
    with pytest.raises(OmnisinkError, match="takes a model, and was given the text"):
        OutRo.from_profile(path, "smolomni")


@pytest.mark.parametrize("call", [find_sinks, record])
@pytest.mark.parametrize(
    ("wrong", "meant"), [("layer", "layers"), ("channel", "channels"), ("criteria", "criterion"), ("span", "spans")]
)
def test_a_misspelt_name_is_not_passed_to_the_model(loaded, inputs, call, wrong, meant) -> None:
    for given in ((loaded, inputs), (loaded.model, inputs), (loaded, "W?")):
        with pytest.raises(OmnisinkError, match=f"was given {wrong}=, which it does not take: did you mean {meant}="):
            call(*given, **{wrong: 3})
    assert find_sinks(loaded.model, **inputs, position_ids=torch.arange(5)[None]).positions(0) == [3]


@pytest.mark.parametrize("given", ["x", 3, ["a"], [], [["a"]], "an W?"])
def test_tokens_are_a_text_for_each(loaded, inputs, given) -> None:
    found = find_sinks(loaded.model, **inputs)
    for show in (found.to_dataframe, found.table, found.to_json):
        with pytest.raises(OmnisinkError, match="tokens must be a list of texts, one for each of the 5 tokens"):
            show(given)
    assert "'W'" in found.table(list("an W?"))


@pytest.mark.parametrize("given", [{1: [0]}, (1, 0), "x", [(1, "a")], [(1, 0, 0)], 3, [(1.5, 0)]])
def test_heads_are_pairs(given: Any) -> None:
    with pytest.raises(ValueError, match="heads must be pairs of a layer and a head"):
        ZeroHeads(given)


def test_a_model_is_loaded_by_its_name(loaded) -> None:
    for given in (loaded.model, loaded, None, 3, ""):
        with pytest.raises(
            OmnisinkError, match=r"load_model\(\) takes the name of a model, as load_model\('smolomni'\)"
        ) as said:
            load_model(given)
        assert "\n" not in str(said.value)
