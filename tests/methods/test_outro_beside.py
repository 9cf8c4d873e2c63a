"""OutRo beside every contrastive method: it acts in every pass, each with a state of its own; and what they refuse."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from omnisink import OutRo, UnsupportedModelError
from omnisink.methods.asd_guidance import ASDGuidance
from omnisink.methods.avcd import AVCD
from omnisink.methods.criteria import Positions
from omnisink.methods.icd import ICD
from omnisink.methods.mad import MAD
from omnisink.methods.pai_guidance import PAIGuidance
from omnisink.methods.sid import SID
from omnisink.methods.vcd import VCD
from omnisink.verification.families import FAMILIES
from tests.methods.reference_avcd import model_and_inputs
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import reader, tiny

OUTRO = OutRo(gamma=0.5, tau=0.01)
BOOST = {"criterion": Positions(tuple(range(3, 30))), "start": 1, "watched": (1, 2), "strength": 1.0}
METHODS = {
    "vcd": VCD(modalities=("vision", "audio")),
    "icd": ICD(tokens=(61, 62, 63)),
    "pai-guidance": PAIGuidance(),
    "sid": SID(rank=0.3),
    "avcd: rows": AVCD(entropy=0.0),
    "avcd: columns": AVCD(entropy=0.0, mask="columns"),
    "avcd: every step": AVCD(entropy=0.0, mask="columns", remask="step"),
    "mad": MAD(tokens=(71, 72), words=(61, 62, 63)),
    "asd-guidance": ASDGuidance(**BOOST),
}
#: Those that want sound and something to see; the others are content with one of them.
BOTH = [name for name in METHODS if name.startswith(("avcd", "mad", "asd"))]


def watch(monkeypatch, method):
    """Note the branches of a method, what each was called with, and what it said at every step."""
    kind, noted = type(method), {"branches": [], "inputs": {}, "logits": []}
    branches, combine = kind.branches, kind.combine_pass

    def noting(self, context):
        noted["branches"] = branches(self, context)
        return [replace(one, change=keeping(number, one.change)) for number, one in enumerate(noted["branches"])]

    def keeping(number, change):
        def changed(inputs):
            found = change(inputs)
            noted["inputs"][number] = {**inputs, **found}
            return found

        return changed

    def combined(self, context, first, twins):
        noted["logits"].append((first[:, -1].clone(), [one[:, -1].clone() for one in twins]))
        return combine(self, context, first, twins)

    monkeypatch.setattr(kind, "branches", noting)
    monkeypatch.setattr(kind, "combine_pass", combined)
    return noted


def alone(model, inputs, tokens, methods):
    """Logits of a prompt and of tokens that follow it, on a model under OutRo and the methods of a branch."""
    kept = {name: value for name, value in inputs.items() if name not in ("past_key_values", "use_cache")}
    found = []
    with torch.inference_mode(), ExitStack() as stack:
        for one in methods:
            stack.enter_context(one(model))
        made = model(**kept, use_cache=True)
        found.append(made.logits[:, -1])
        for token in tokens:
            made = model(token, past_key_values=made.past_key_values, use_cache=True)
            found.append(made.logits[:, -1])
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_branch_is_the_model_under_outro_with_the_branchs_inputs(name, monkeypatch):
    model, inputs = model_and_inputs()
    method = METHODS[name]
    rereads = name == "avcd: every step"
    noted = watch(monkeypatch, method)
    tokens = [torch.tensor([[30]]), torch.tensor([[31]])]
    with torch.inference_mode(), OUTRO(model) as trace, method(model):
        made = model(**inputs, use_cache=True)
        for token in tokens:
            made = model(token, past_key_values=made.past_key_values, use_cache=True)
    assert trace.sinks.positions(1)
    own = alone(model, inputs, tokens, [OUTRO])
    assert all(torch.equal(first, one) for (first, _), one in zip(noted["logits"], own, strict=True))
    assert not torch.allclose(own[-1], alone(model, inputs, tokens, [])[-1], atol=1e-4)
    for number, branch in enumerate(noted["branches"]):
        # What reads everything anew has no steps; what it reads last is what its masks are of.
        after = [] if rereads else tokens
        expected = alone(model, noted["inputs"][number], after, [OUTRO, *branch.methods])
        seen = [twins[number] for _, twins in noted["logits"]][-len(expected) :]
        for twin, one in zip(seen, expected, strict=True):
            assert torch.allclose(twin, one, atol=2e-5), name
        assert not torch.allclose(seen[-1], own[-1], atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_models_without_what_a_method_contrasts_are_refused(name):
    method = METHODS[name]
    text = tiny_llama(num_hidden_layers=3)
    with pytest.raises(UnsupportedModelError, match=r"text only|acts on"), method(text):
        text(prompt(9))
    if name in BOTH:
        for family in ("qwen2_5_vl", "qwen2_audio"):
            model = reader(tiny(family, "sdpa"))
            with pytest.raises(UnsupportedModelError, match="acts on"), method(model):
                model(**FAMILIES[family].multimodal_inputs(model))
