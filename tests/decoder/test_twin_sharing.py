"""Twins do not run again what the first pass has run for them: towers, and layers before their first change."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch

from omnisink.decoder import twins
from omnisink.decoder.anatomy import read_anatomy
from omnisink.methods.avcd import AVCD
from omnisink.methods.base import Method
from omnisink.methods.contrast import Branch
from omnisink.methods.icd import ICD
from omnisink.methods.vcd import VCD
from omnisink.verification.families import FAMILIES
from tests.decoder.test_replay import counted, tower_parts
from tests.decoder.test_twins import Changed, other_word
from tests.reference_outro import prompt, tiny_llama

OMNI = "qwen2_5_omni_thinker"


def plain():
    """Let every twin run everything."""
    return patch.object(twins, "share", lambda *_: nullcontext())


def logits(model, inputs, method):
    with torch.inference_mode(), method(model):
        return model(**inputs).logits[:, -1]


@pytest.mark.parametrize(
    ("method", "again"),
    [(AVCD(entropy=0.0), ()), (ICD(tokens=(40, 41)), ()), (VCD(beta=0.0), ("visual",))],
    ids=["avcd", "icd", "vcd"],
)
def test_towers_run_again_for_other_media_only(method, again):
    model = FAMILIES[OMNI].build()
    inputs = FAMILIES[OMNI].multimodal_inputs(model)
    parts = tower_parts(read_anatomy(model))
    with counted(parts) as calls, plain():
        expected = logits(model, inputs, method)
        every = dict(calls)
    with counted(parts) as calls:
        assert torch.equal(logits(model, inputs, method), expected)
        shared = dict(calls)
    with counted(parts) as calls, torch.inference_mode():
        model(**inputs)
        once = dict(calls)
    assert every != shared
    for name, count in once.items():
        assert shared[name] == count * (2 if set(again) & set(name.split(".")) else 1)
    assert not any("forward" in vars(module) for module in model.modules())


def test_generate_encodes_sound_once_where_only_pictures_have_noise():
    model = FAMILIES[OMNI].build()
    inputs = FAMILIES[OMNI].multimodal_inputs(model)
    with counted(tower_parts(read_anatomy(model))) as calls, torch.inference_mode():
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        once = dict(calls)
        calls.clear()
        with VCD()(model):
            model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert calls == {name: count * (2 if "visual" in name else 1) for name, count in once.items()}


@dataclass(frozen=True)
class From(Method):
    """Halve head outputs from a layer on."""

    layer: int = 0

    def can_skip_layer(self, layer, context):
        return layer < self.layer

    def head_output(self, call, output, context):
        return output / 2 if call.layer >= self.layer else output


@dataclass(frozen=True)
class Late(Changed):
    """The branch has the model's inputs, and another method from layer 3 on."""

    claimed: int = 3
    change: str = "none"

    def branches(self, context):
        own = {"none": lambda inputs: {}, "another word": other_word}[self.change]
        return [Branch(own, (From(3),), layers=self.claimed)]


@pytest.mark.parametrize(
    ("change", "claimed", "ran"), [("none", 3, 9), ("none", 2, 10), ("none", 6, 9), ("another word", 3, 12)]
)
def test_layers_before_the_first_change_run_once(change, claimed, ran):
    model, inputs = tiny_llama(), {"input_ids": prompt(12, (0, 5))}
    layers = dict(enumerate(site.module for site in read_anatomy(model).attention.values()))
    assert len(layers) == 6
    with plain():
        expected = logits(model, inputs, Late(2.0, 0.0, change))
    with counted(layers) as calls:
        assert torch.equal(logits(model, inputs, Late(2.0, 0.0, change, claimed=claimed)), expected)
    assert sum(calls.values()) == ran
    with Late(2.0, 0.0)(model), torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with plain(), Late(2.0, 0.0)(model), torch.inference_mode():
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), made)


def test_nothing_stands_in_front_of_a_compiled_model_or_after_an_error():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    entered = []

    def share(anatomy, layers):
        entered.append(layers)
        return nullcontext()

    with patch.object(twins, "share", share), Late(2.0, 0.0)(model), torch.inference_mode():
        torch.compile(model, backend="eager")(ids)
        assert not entered
        model(ids)
        assert entered == [3]
    handle = model.model.layers[4].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), Late(2.0, 0.0)(model):
        model(ids)
    handle.remove()
    assert not any("forward" in vars(module) for module in model.modules())
