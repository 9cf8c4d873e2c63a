"""Methods that change attention weights, in every family: batches, windows, soft caps, learned sinks, own spans."""

from __future__ import annotations

import pytest
import torch

from omnisink import UnsupportedModelError
from omnisink.decoder.anatomy import read_anatomy
from omnisink.methods.act import ACT
from omnisink.methods.asd import ASD
from omnisink.methods.criteria import Positions
from omnisink.methods.pai import PAI
from omnisink.methods.var import VAR
from omnisink.methods.visflow import VisFlow
from omnisink.verification.families import FAMILIES
from tests.verification.family_cells import LENGTHS, MARKS, alone, in_turn, reader, same, tiny

pytestmark = MARKS

METHODS = {
    "var": VAR(Positions((0, 5, 9)), least=0.0, rho=0.3, start=0, stop=None),
    "pai": PAI(alpha=1.0, start=0),
    "asd": ASD(Positions((4, 5, 9)), start=1, strength=3.0),
    "act": ACT(start=0, stop=None, threshold=0.05),
    "visflow": VisFlow(first=0, salient=4.0, text_over=0.2, system_over=0.1),
}
NAMES = list(METHODS)


def spans_of(inputs):
    """Say of real tokens 4 to 7 that they are an image, and of 8 to 9 that they are a sound."""
    place = inputs["attention_mask"].cumsum(dim=1) - 1
    real = inputs["attention_mask"].bool()
    return {"image": (place >= 4) & (place < 8) & real, "audio": (place >= 8) & (place < 10) & real}


def logits(model, inputs, steps):
    """Logits of a prefill, and of greedy tokens after it."""
    made = reader(model).generate(
        **inputs, min_new_tokens=steps, max_new_tokens=steps, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return torch.stack(made.logits, dim=1)


CELLS = [(*cell, NAMES[(number + shift) % 5]) for shift in (0, 2) for number, cell in enumerate(in_turn(shift))]


@pytest.mark.parametrize(("name", "backend", "what"), CELLS)
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name, backend, what):
    family, method = FAMILIES[name], METHODS[what]
    model = tiny(name, backend)
    inputs = family.inputs(model, lengths=LENGTHS)
    if min(read_anatomy(reader(model)).attention) >= 1 and what == "asd":
        pytest.skip("no layer with attention marks sinks there: the first has none")
    bare = logits(model, inputs, 3)
    with method(reader(model), spans=spans_of(inputs)):
        together = logits(model, inputs, 3)
    assert torch.isfinite(together).all()
    assert torch.equal(logits(model, inputs, 3), bare)
    assert not same(together, bare)
    for b in range(len(LENGTHS)):
        one = alone(inputs, b)
        with method(reader(model), spans=spans_of(one)):
            assert same(together[b : b + 1], logits(model, one, 3))


SEEING = [
    name
    for name, family in FAMILIES.items()
    if family.expectation != "refused" and family.multimodal_inputs and {"image", "video"} & set(family.modalities)
]


@pytest.mark.parametrize(("name", "what"), [(n, ("var", "pai", "visflow")[k % 3]) for k, n in enumerate(SEEING)])
def test_image_tokens_are_found_by_the_ids_that_the_model_is_called_with(name, what):
    family = FAMILIES[name]
    found = []
    for backend in family.backends[:2]:
        model = tiny(name, backend)
        inputs = family.multimodal_inputs(model)
        method = METHODS[what] if what != "var" else VAR(Positions(tuple(range(64))[::2]), least=0.0, rho=0.0, start=0)
        with torch.inference_mode():
            bare = reader(model)(**inputs).logits
            with method(reader(model)):
                found.append(reader(model)(**inputs).logits)
        assert torch.isfinite(found[-1]).all()
        assert not torch.equal(found[-1], bare)
    assert all(same(other, found[0]) for other in found[1:])


@pytest.mark.parametrize("what", ["var", "pai", "asd", "visflow"])
def test_models_that_take_none_of_it_are_refused(what):
    model = tiny("llama", "sdpa")
    inputs = FAMILIES["llama"].inputs(model, lengths=LENGTHS)
    with pytest.raises(UnsupportedModelError, match="names no token"), METHODS[what](model):
        logits(model, inputs, 1)
