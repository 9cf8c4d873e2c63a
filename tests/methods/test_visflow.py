"""What VisFlow's two parts do by themselves."""

from __future__ import annotations

import torch

from omnisink.methods.registry import parse_method
from omnisink.methods.visflow import VisFlow
from tests.methods.reference_edits import run
from tests.methods.reference_weights import PlainVisFlow
from tests.methods.weight_cases import on, places, spanned
from tests.reference_outro import tiny_llama


class Watching(PlainVisFlow):
    """Note the attention to salient tokens and to image sinks, before and after, over the rows of the prompt."""

    def row(self, layer, head, t, last, scores, weights):
        new = super().row(layer, head, t, last, scores, weights)
        factor = self.factors[layer, head]
        for name, wanted in (("salient", self.salient), ("sink", self.sink)):
            chosen = [j for j in self.images if factor[j] == wanted and j < len(weights)]
            if chosen and self.after_images(t):
                self.seen.setdefault(name, []).append((float(weights[chosen].sum()), float(new[chosen].sum())))
        return new


def test_attention_to_salient_tokens_grows():
    """In the restatement, which the class equals (`test_attention_weights`)."""
    model, ids = tiny_llama(), spanned()
    plain = Watching(model, **places(ids), heads=False, salient=4.0)
    plain.seen = {}
    with torch.inference_mode():
        plain.prefill(ids)
    assert plain.seen["sink"]
    assert plain.seen["salient"]
    assert all(after >= before for before, after in plain.seen["salient"])
    with on(parse_method("visflow:tokens:salient=4"), model, {"input_ids": ids}):
        found = run(model, ids)
    with torch.inference_mode():
        expected = PlainVisFlow(model, **places(ids), heads=False, salient=4.0).prefill(ids)
    assert (found.double() - expected).abs().max() < 1e-5


def test_rows_up_to_the_last_image_token_stay_as_they_are():
    model, ids = tiny_llama(), spanned()
    with on(VisFlow(), model, {"input_ids": ids}):
        found = run(model, ids)
    changed = (found != run(model, ids)).any(dim=-1)
    assert not changed[: max(places(ids)["images"]) + 1].any()
    assert changed[max(places(ids)["images"]) + 1]


def test_each_part_can_be_left_out():
    assert parse_method("visflow:heads") == VisFlow(tokens=False)
    assert parse_method("visflow:tokens") == VisFlow(heads=False)
    assert parse_method("visflow:tokens:no-tokens:modalities=[video]") == VisFlow(
        heads=False, tokens=False, modalities=("video",)
    )
