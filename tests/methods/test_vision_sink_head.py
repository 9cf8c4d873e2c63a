"""EAH against its restatement in float64, with image tokens that spans name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.methods import VisionSinkHead
from omnisink.methods.registry import parse_method
from omnisink.verification.families import FAMILIES
from tests.methods.reference_edits import PlainEdit, generated, padded, plain_run, run
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import MARKS, in_turn, reader, that_see_or_hear, tiny

pytestmark = MARKS
TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)
IMAGE = range(2, 9)
#: Received attention of the tiny model's image tokens lies around it.
THRESHOLD = 0.19


@dataclass
class PlainEAH(PlainEdit):
    """The method on one sequence whose columns `image` are an image."""

    layer: int = 1
    threshold: float = THRESHOLD
    image: tuple = tuple(IMAGE)
    skip_head_zero: bool = False
    head: int | None = None

    def _attend(self, query, number, start, is_prefill, *rest):
        output = super()._attend(query, number, start, is_prefill, *rest)
        if number != self.layer:
            return output
        heads, length, width = query.shape
        if is_prefill:
            counts = []
            for h in range(heads):
                received = []
                for place, j in enumerate(self.image):
                    total = sum(float(self.weights[number][h, i, j]) for i in range(length) if i != j)
                    received.append(total / (len(self.image) - place))
                counts.append(sum(r > self.threshold for r in received))
            self.head = counts.index(max(counts)) if max(counts) else None
            self.counts = counts
        if self.head is None or (self.skip_head_zero and self.head == 0):
            return output
        for t in range(length):
            k = self.keys[number][self.head // 2][: start + t + 1]
            row = (query[self.head, t] @ k.T / width**0.5).softmax(dim=0)
            for h in range(heads):
                output[t, h] = row @ self.values[number][h // 2][: start + t + 1]
        return output


def spans(rows, length, side="left"):
    """Spans of a batch whose rows have an image or have none."""
    marked = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, (row, has) in enumerate(rows):
        start = length - row.shape[1] if side == "left" else 0
        marked[b, [start + j for j in IMAGE if has]] = True
    return {"image": marked}


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_prompt_and_generated_tokens_equal_the_restatement(layer, backend):
    model, ids = tiny_llama(backend), prompt(13)
    plain = PlainEAH(model, layer=layer)
    expected = plain_run(plain, ids, CONTINUATION)
    assert plain.head is not None
    assert len(set(plain.counts)) > 1  # or any head would do
    for cache in ("dynamic", "static"):
        with VisionSinkHead(layer, THRESHOLD)(model, spans=spans([(ids, True)], 13)):
            found = run(model, ids, CONTINUATION, cache)
        assert (found.double() - expected).abs().max() < TOLERANCE
    assert (run(model, ids, CONTINUATION).double() - expected).abs().max() > 20 * TOLERANCE


def test_head_zero_is_left_out_where_the_release_leaves_it_out():
    model = tiny_llama()
    found = {}
    for seed in range(30):
        ids = prompt(13, (), seed)
        plain = PlainEAH(model)
        plain_run(plain, ids)
        found.setdefault(plain.head, ids)
    assert 0 in found
    other = next(head for head in found if head)
    for head, same in ((0, True), (other, False)):
        ids = found[head]
        bare = run(model, ids)
        with VisionSinkHead(1, THRESHOLD, skip_head_zero=True)(model, spans=spans([(ids, True)], 13)):
            assert torch.equal(run(model, ids), bare) is same
        with VisionSinkHead(1, THRESHOLD)(model, spans=spans([(ids, True)], 13)):
            assert not torch.equal(run(model, ids), bare)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(cache):
    model, method = tiny_llama(), VisionSinkHead(1, THRESHOLD)
    options = {"cache_implementation": "static"} if cache == "static" else {}
    rows = [(prompt(13, (0, 6)), True), (prompt(9), False), (prompt(11, (), seed=4), True)]
    inputs = padded([row for row, _ in rows])
    bare, _ = generated(model, inputs, **options)
    with method(model, spans=spans(rows, 13)):
        together, tokens = generated(model, inputs, **options)
    for b, (row, has) in enumerate(rows):
        with method(model, spans=spans([(row, has)], row.shape[1])):
            alone, same_tokens = generated(model, padded([row]), **options)
        assert (together[b] - alone[0]).abs().max() < TOLERANCE
        assert tokens[b].tolist() == same_tokens[0].tolist()
    assert (together[0] - bare[0]).abs().max() > TOLERANCE
    assert torch.equal(together[1], bare[1])  # A prompt without an image keeps every bit.


def test_a_right_padded_prompt_is_what_it_is_without_padding():
    model, row = tiny_llama(), prompt(10, (0, 4))
    inputs = {k: v[:1] for k, v in padded([row, prompt(12)], "right").items()}
    with torch.inference_mode():
        with VisionSinkHead(1, THRESHOLD)(model, spans=spans([(row, True)], 12, "right")):
            found = model(**inputs).logits[:, :10]
        with VisionSinkHead(1, THRESHOLD)(model, spans=spans([(row, True)], 10)):
            expected = model(input_ids=row).logits
    assert (found - expected).abs().max() < TOLERANCE


def test_beams_keep_the_head_of_their_prompt():
    model = tiny_llama()
    rows = [(prompt(13, (0, 6)), True), (prompt(11, (), seed=4), True)]
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "length_penalty": 0.0}
    with VisionSinkHead(1, THRESHOLD)(model, spans=spans(rows, 13)):
        both = model.generate(**padded([row for row, _ in rows]), **options)
    for b, (row, has) in enumerate(rows):
        with VisionSinkHead(1, THRESHOLD)(model, spans=spans([(row, has)], row.shape[1])):
            assert both[b, -6:].tolist() == model.generate(**padded([row]), **options)[0, -6:].tolist()


def test_heads_that_are_all_equal_change_nothing():
    model, ids = tiny_llama(), prompt(13)
    for layer in model.model.layers:
        with torch.no_grad():
            for name, heads in (("q_proj", 4), ("k_proj", 2)):
                weight = getattr(layer.self_attn, name).weight
                weight.copy_(weight[:12].repeat(heads, 1))
    bare = run(model, ids, CONTINUATION)
    with VisionSinkHead(1, 0.0)(model, spans=spans([(ids, True)], 13)):
        found = run(model, ids, CONTINUATION)
    assert (found - bare).abs().max() < TOLERANCE


def test_no_token_over_the_threshold_changes_no_bit():
    model, ids = tiny_llama(), prompt(13)
    bare = run(model, ids, CONTINUATION)
    with VisionSinkHead(1, 1.0)(model, spans=spans([(ids, True)], 13)):
        assert torch.equal(run(model, ids, CONTINUATION), bare)


def test_long_prompts_are_counted_in_blocks(monkeypatch):
    import omnisink.methods.vision_sink_head as home

    model, ids = tiny_llama(), prompt(13)
    given = {"spans": spans([(ids, True)], 13)}
    with VisionSinkHead(1, THRESHOLD)(model, **given):
        expected = run(model, ids)
    monkeypatch.setattr(home, "_ROWS", 4)
    with VisionSinkHead(1, THRESHOLD)(model, **given):
        assert (run(model, ids) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(("name", "backend"), that_see_or_hear(in_turn(1)))
def test_families_that_see_share_a_head_or_are_refused_by_name(name, backend):
    model, family = tiny(name, backend), FAMILIES[name]
    inputs = family.multimodal_inputs(model)
    with torch.inference_mode():
        bare = reader(model)(**inputs).logits
        try:
            with VisionSinkHead(1, 0.0)(reader(model)):
                found = reader(model)(**inputs).logits
        except OmnisinkError as error:
            assert type(reader(model)).__name__ in str(error) or "layer 1" in str(error)  # noqa: PT017
            return
    assert torch.isfinite(found).all()
    if any(key.startswith("pixel") for key in inputs):
        assert not torch.equal(found, bare)


def test_the_presets_are_those_of_the_release():
    assert parse_method("vision-sink-head") == parse_method("vision-sink-head:readme")
    assert parse_method("vision-sink-head:env") == VisionSinkHead(0, 0.0008)
    assert parse_method("vision-sink-head:release") == VisionSinkHead(0, 0.0008, skip_head_zero=True)


def test_models_it_is_not_defined_on_are_refused():
    model = tiny_llama()
    with pytest.raises(UnsupportedModelError, match="VisionSinkHead acts on image or video"), VisionSinkHead()(model):
        run(model, prompt(9))
    with pytest.raises(OmnisinkError, match="layer 9 has no attention"), VisionSinkHead(9)(model):
        pass


@pytest.mark.parametrize("settings", [{"threshold": -0.1}, {"threshold": float("nan")}, {"modalities": ("text",)}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        VisionSinkHead(**settings)
