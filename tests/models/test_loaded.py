"""What `load_model` returns, as it is looked at."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest

from omnisink import load_model
from omnisink.models.parts import ModelParts


@pytest.fixture(scope="module")
def loaded(llama_folder):
    return load_model(str(llama_folder), device="cpu", dtype="float32")


def test_it_is_one_short_line(loaded) -> None:
    assert repr(loaded) == (
        f"Loaded({loaded.name}: class LlamaForCausalLM; with 0.0 million parameters, float32 on cpu; takes text; "
        f"from {loaded.source})"
    )
    assert "<td>LlamaForCausalLM</td>" in loaded._repr_html_()
    assert repr(ModelParts(loaded.model, None, None, "x")) == "ModelParts(x)"


@pytest.mark.real
def test_it_says_what_an_omni_model_takes(smolomni) -> None:
    assert "; takes text, audio, image, video; " in repr(smolomni)
    assert "146.3 million parameters, float32 on cpu" in repr(smolomni)


def test_an_attribute_of_the_model_is_pointed_at(loaded) -> None:
    with pytest.raises(AttributeError, match=r"write loaded\.model\.generate"):
        loaded.generate(input_ids=None)
    with pytest.raises(AttributeError, match="Loaded has no attribute 'nothing'$"):
        loaded.nothing  # noqa: B018
    assert not hasattr(loaded, "device")
    for copied in (copy.copy(loaded), replace(loaded, name="other"), pickle.loads(pickle.dumps(loaded))):
        assert type(copied.model) is type(loaded.model)
