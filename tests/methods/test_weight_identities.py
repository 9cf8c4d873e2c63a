"""What holds of every method that changes attention weights: idle settings, sums, refusals, no trace afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from omnisink import OmnisinkError, UnsupportedModelError
from omnisink.methods.act import ACT
from omnisink.methods.asd import ASD
from omnisink.methods.base import Method
from omnisink.methods.criteria import Positions
from omnisink.methods.pai import PAI
from omnisink.methods.var import VAR
from omnisink.methods.visflow import VisFlow
from tests.decoder.test_attachment import fingerprint
from tests.methods.reference_edits import generated, padded, run
from tests.methods.weight_cases import (
    BACKENDS,
    CASES,
    CONTINUATION,
    IMAGE_METHODS,
    SINKS,
    in_turn,
    on,
    prompts,
    spanned,
)  # fmt: skip
from tests.reference_outro import FLEX_WARNING, prompt, tiny_llama

pytestmark = [
    pytest.mark.usefixtures("flex_attention_uncompiled"),
    FLEX_WARNING,
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
]


IDLE = {
    "var": VAR(Positions(SINKS), p=0.0),
    "var: no sink": VAR(Positions(())),
    "var: no sink among the image tokens": VAR(Positions((0,))),
    "var: no head takes part": VAR(Positions(SINKS), least=1.0),
    "pai": PAI(alpha=0.0),
    "asd": ASD(Positions(SINKS), strength=0.0, start=2),
    "asd: no sink": ASD(Positions(()), start=2),
    "asd: a sink of text": ASD(Positions((0,)), start=2),
    "act": ACT(beta=1.0),
    "act: no sink": ACT(threshold=1.0),
    "act: no head": ACT(heads=()),
    "visflow": VisFlow(salient=1.0, sink=1.0, less_text=0.0, less_system=0.0),
    "visflow: nothing treated": VisFlow(tokens=False, heads=False),
    "visflow: no head": VisFlow(tokens=False, text_over=1.0, system_over=1.0),
}


@pytest.mark.parametrize(("name", "backend"), in_turn(IDLE, BACKENDS))
def test_what_does_nothing_changes_nothing_by_a_bit(name, backend):
    model, inputs = tiny_llama(backend), padded(prompts())
    bare, _ = generated(model, inputs)
    with on(IDLE[name], model, inputs):
        idle, _ = generated(model, inputs)
    assert torch.equal(idle, bare)


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_a_prompt_without_images_is_unchanged_beside_one_that_has_them(name):
    model, rows = tiny_llama(), [spanned(), prompt(13, (0,))]
    inputs = padded(rows)
    bare, _ = generated(model, inputs)
    with on(CASES[name].method, model, inputs):
        found, _ = generated(model, inputs)
    assert torch.equal(found[1], bare[1])
    assert not torch.equal(found[0], bare[0])


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_prompts_without_images_are_unchanged_and_reported(name):
    model, inputs = tiny_llama(), padded([prompt(13, (0,)), prompt(9, (0, 3))])
    bare, _ = generated(model, inputs)
    with on(CASES[name].method, model, inputs) as trace:
        found, _ = generated(model, inputs)
    assert torch.equal(found, bare)
    assert set(trace.skipped_layers.values()) == {"no prompt has the tokens that it acts on"}


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_a_model_of_text_is_refused(name):
    model, ids = tiny_llama(), prompt(13, (0,))
    marks = fingerprint(model)
    kind = type(CASES[name].method).__name__
    with pytest.raises(UnsupportedModelError, match=rf"{kind}.*image or video"), CASES[name].method(model):
        run(model, ids)
    assert fingerprint(model) == marks


@dataclass(frozen=True)
class OnesForValues(Method):
    """Attend to values of one, so that a head output is the sum of its weights, and note what comes out."""

    def attention_input(self, call, context):
        return replace(call, value=torch.ones_like(call.value))

    def head_output(self, call, output, context):
        return output


@dataclass(frozen=True)
class Noted(Method):
    """Note the head outputs as they leave the methods before this one."""

    def head_output(self, call, output, context):
        context.record.measured.setdefault("output", {}).setdefault(call.layer, []).append(output.clone())
        return output


@pytest.mark.parametrize("name", CASES)
def test_weights_sum_to_one(name):
    model, ids = tiny_llama(), spanned()
    with OnesForValues()(model), on(CASES[name].method, model, {"input_ids": ids}), Noted()(model) as trace:
        run(model, ids, CONTINUATION)
        outputs = trace.record.measured["output"]
    assert len(outputs) == 6
    for passes in outputs.values():
        assert len(passes) == 4
        for one in passes:
            assert (one - 1.0).abs().max() < 2e-6


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_left_without_a_trace(name):
    model, inputs = tiny_llama(), padded(prompts())
    before, marks = generated(model, inputs)[0], fingerprint(model)
    with on(CASES[name].method, model, inputs):
        assert fingerprint(model) != marks
        assert not torch.equal(generated(model, inputs)[0], before)
    assert fingerprint(model) == marks
    assert torch.equal(generated(model, inputs)[0], before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VAR(p=1.5), "p must be between 0 and 1"),
        (lambda: VAR(rho=float("nan")), "rho must be a finite number"),
        (lambda: VAR(least=-0.1), "least"),
        (lambda: VAR(donated=2), "donated"),
        (lambda: VAR(start=1.5), "start must be a whole number"),
        (lambda: VAR(donors="image"), "donors"),
        (lambda: PAI(alpha=-0.1), "alpha must be between"),
        (lambda: PAI(stop=True), "stop must be a whole number or None"),
        (lambda: ASD(start=0), "start"),
        (lambda: ASD(share=1.1), "share"),
        (lambda: ASD(strength="much"), "strength"),
        (lambda: ACT(beta=1.01), "beta"),
        (lambda: ACT(threshold=-1), "threshold"),
        (lambda: ACT(alpha=-1), "alpha must be at least 0"),
        (lambda: VisFlow(salient=-1), "salient"),
        (lambda: VisFlow(less_text=2), "less_text"),
        (lambda: VisFlow(deviations=float("inf")), "deviations"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


REFUSED = {
    "no layer": (PAI(start=6), r"PAI acts on layers 6:, which is none of the model's 6"),
    "no layer of VAR": (VAR(start=5), r"VAR acts on layers 5:-1"),
    "a layer of VAR": (VAR(layers=(2, 9)), r"\[9\].*0 to 5"),
    "nothing to boost": (ASD(), r"ASD boosts from layer 6 on.*layers 0 to 5"),
    "layer of a head": (ACT(heads=((6, 0),)), r"layers \[6\]"),
    "a head": (ACT(heads=((1, 4),)), r"layer 1 has heads 0 to 3, not \[4\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_the_model_is_refused_with_the_reason(name):
    method, message = REFUSED[name]
    model, ids = tiny_llama(), spanned()
    marks = fingerprint(model)
    with pytest.raises(OmnisinkError, match=message), on(method, model, {"input_ids": ids}):
        run(model, ids)
    assert fingerprint(model) == marks
