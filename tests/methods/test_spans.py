"""What a method knows of the modalities of a prompt's tokens: the same as `Loaded.spans`, in every pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.replay import replay
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.methods.base import Method
from omnisink.methods.spans import require_modality
from omnisink.models.adapters.spans import Span
from omnisink.verification.families import FAMILIES
from omnisink.verification.tiny import words
from tests.reference_outro import prompt, tiny_llama

WITH_MEDIA = [name for name, family in FAMILIES.items() if family.multimodal_inputs is not None]


@dataclass(frozen=True)
class Looking(Method):
    """Note the spans of every pass, and change nothing."""

    seen: list = field(default_factory=list, compare=False)
    wanted: tuple = ()

    needs_spans: ClassVar[bool] = True

    def begin(self, context):
        self.seen.append({modality: mask.clone() for modality, mask in context.spans.items()})
        if self.wanted:
            require_modality(context, *self.wanted)

    def head_output(self, call, output, context):
        return output


def expected_masks(model, inputs):
    """By the ids of the tiny models: 10 is an image, 11 a video, 14 a sound."""
    ids, real = inputs["input_ids"], inputs["attention_mask"] == 1
    media = {"image": ids == 10, "video": ids == 11, "audio": ids == 14}
    text = real & ~(media["image"] | media["video"] | media["audio"])
    return {"text": text, **{modality: mask & real for modality, mask in media.items()}}


def same(seen, expected):
    assert "text" in seen
    for modality, mask in expected.items():
        assert torch.equal(seen[modality], mask) if modality in seen else not mask.any()


@pytest.mark.parametrize("family", WITH_MEDIA)
def test_every_family_says_which_tokens_are_media(family):
    model = FAMILIES[family].build()
    inputs = FAMILIES[family].multimodal_inputs(model)
    looking, forward = Looking(), getattr(model, "thinker", model)
    with looking(model), torch.inference_mode():
        forward(**inputs)
    expected = expected_masks(model, inputs)
    same(looking.seen[0], expected)
    taken = {m for m in FAMILIES[family].modalities if expected[m].any()}
    assert len(taken) > 1
    assert taken <= looking.seen[0].keys()


def batch(model, side="left"):
    """Two prompts for a tiny Llava, of which the first has a picture."""
    with_picture = FAMILIES["llava"].multimodal_inputs(model)
    ids, length = with_picture["input_ids"], with_picture["input_ids"].shape[1]
    other = torch.tensor([words(9, seed=3)])
    padding = torch.zeros(1, length - 9, dtype=torch.long)
    row, mask = ([padding, other], [padding, torch.ones_like(other)])
    if side == "right":
        row, mask = row[::-1], mask[::-1]
    return {
        **with_picture,
        "input_ids": torch.cat([ids, torch.cat(row, dim=1)]),
        "attention_mask": torch.cat([torch.ones_like(ids), torch.cat(mask, dim=1)]),
    }


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_prompt_without_a_picture_beside_one_with_it(side, cache):
    model = FAMILIES["llava"].build()
    inputs = batch(model, side)
    looking = Looking(wanted=("image", "video"))
    config = model.config.text_config
    made = DynamicCache(config=config) if cache == "dynamic" else StaticCache(config=config, max_cache_len=48)
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], dim=1)
    with looking(model), torch.inference_mode():
        model(**inputs, past_key_values=made)
        model(input_ids=torch.tensor([[20], [21]]), attention_mask=mask, past_key_values=made)
    expected = expected_masks(model, inputs)
    assert expected["image"][0].any()
    assert not expected["image"][1].any()
    assert expected["text"][1].sum() == 9
    for seen in looking.seen:  # a later pass knows the prompt's, and what it adds is text
        same(seen, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"num_beams": 2, "cache_implementation": "static"},
    ],
    ids=str,
)
def test_they_follow_beams_and_several_answers(options):
    model = FAMILIES["llava"].build()
    inputs = batch(model)
    looking = Looking()
    torch.manual_seed(0)
    with looking(model):
        model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, **options)
    expected = expected_masks(model, inputs)
    count = max(options.get("num_beams", 1), options.get("num_return_sequences", 1))
    assert len(looking.seen) == 4
    for seen in looking.seen:
        same(seen, {m: mask.repeat_interleave(count, dim=0) for m, mask in expected.items()})


@pytest.mark.parametrize("given", ["spans", "one row", "masks"])
def test_spans_of_the_user_come_before_ids(given):
    model = FAMILIES["llava"].build()
    inputs = batch(model)
    length = inputs["input_ids"].shape[1]
    rows = [[Span("text", 0, 2), Span("video", 2, 5)], [Span("text", length - 9, length)]]
    video = torch.zeros(2, length, dtype=torch.bool)
    video[0, 2:5] = True
    spans = rows if given == "spans" else {"video": video}
    if given == "one row":
        inputs = FAMILIES["llava"].multimodal_inputs(model)
        spans, video = rows[0], video[:1]
    looking = Looking(wanted=("video",))
    with looking(model, spans=spans):
        model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, num_beams=2)
    real = inputs["attention_mask"] == 1
    expected = {"video": video, "image": torch.zeros_like(video), "text": real & ~video}
    for seen in looking.seen:
        same(seen, {m: mask.repeat_interleave(2, dim=0) for m, mask in expected.items()})


def test_ids_are_those_of_the_outermost_module_and_of_this_pass_only():
    """A call of a part with embeddings after a call of the whole does not take the ids of the call before."""
    model = FAMILIES["llava"].build()
    inputs = FAMILIES["llava"].multimodal_inputs(model)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    looking = Looking()
    with torch.inference_mode(), looking(model):
        model(**inputs)
        with pytest.raises(OmnisinkError, match="called without input_ids. Say it with spans"):
            model.model.language_model(inputs_embeds=embeds)
        with pytest.raises(OmnisinkError, match="called without input_ids"):
            model(inputs_embeds=embeds)
        with pytest.raises(ValueError, match="image size"):  # fails on its way to the decoder
            model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"][:, :, :0])
        with pytest.raises(OmnisinkError, match="called without input_ids"):
            model.model.language_model(inputs_embeds=embeds)
        model.model.language_model(input_ids=inputs["input_ids"])
    same(looking.seen[-1], expected_masks(model, inputs))
    assert not any(hasattr(module, "_ids") for module in model.modules())


def test_they_are_known_in_a_replay_too():
    model = FAMILIES["llava"].build()
    inputs = FAMILIES["llava"].multimodal_inputs(model)
    looking = Looking()
    with torch.inference_mode(), replay(read_anatomy(model)) as tape:
        plain = model(**inputs, use_cache=False).logits
        with tape.from_layer(2), looking(model):
            assert torch.equal(model(**inputs, use_cache=False).logits, plain)
    same(looking.seen[0], expected_masks(model, inputs))


def test_nothing_is_left_on_the_model_and_nothing_is_put_on_it_unasked():
    model = FAMILIES["llava"].build()

    def hooks():
        return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in (model, model.model))

    @dataclass(frozen=True)
    class Blind(Looking):
        needs_spans: ClassVar[bool] = False

    inputs = FAMILIES["llava"].multimodal_inputs(model)
    with Looking()(model):
        assert hooks() == 4
    assert hooks() == 0
    with Blind()(model), torch.inference_mode():
        assert hooks() == 0
        with pytest.raises(OmnisinkError, match="Blind looks at context.spans without having asked"):
            model(**inputs)


def test_a_model_of_text_is_refused_by_a_method_about_pictures():
    model, ids = tiny_llama(), prompt(9)
    with torch.inference_mode():
        with Looking(looked := [])(model):
            model(inputs_embeds=model.get_input_embeddings()(ids))
        assert looked[0]["text"].all()
        assert looked[0].keys() == {"text"}
        with pytest.raises(
            UnsupportedModelError, match=r"acts on image or video tokens, and the configuration of Lla"
        ):
            with Looking(wanted=("image", "video"))(model):
                model(input_ids=ids)
        mask = torch.zeros(1, 9, dtype=torch.bool)
        with Looking(wanted=("image",))(model, spans={"image": mask}):
            model(input_ids=ids)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (
            {"image": torch.zeros(1, 8, dtype=torch.bool)},
            r"spans of image that Looking was given are torch.bool of the",
        ),
        ({"image": torch.zeros(2, 9, dtype=torch.bool)}, r"\(2, 9\), and the prompt has the shape \(1, 9\)"),
        ({"image": torch.zeros(1, 9)}, "torch.float32"),
        ([[Span("image", 4, 12)]], "a span of image ends at 12, past the 9 tokens"),
        ("image", "spans must be what loaded.spans"),
    ],
)
def test_spans_that_do_not_fit_are_refused(spans, message):
    model = tiny_llama()
    with pytest.raises(OmnisinkError, match=message), Looking()(model, spans=spans), torch.inference_mode():
        model(input_ids=prompt(9))


def test_one_graph_with_spans():
    torch._dynamo.reset()
    model = tiny_llama(num_hidden_layers=2)
    model.config.image_token_id = 20
    ids = prompt(9)
    ids[0, 3:5] = 20
    cache = StaticCache(config=model.config, max_cache_len=16)

    @dataclass(frozen=True)
    class Halving(Method):
        needs_spans: ClassVar[bool] = True

        def head_output(self, call, output, context):
            if not context.now.is_prefill:
                return output * context.spans["text"].float().mean()
            return torch.where(context.spans["image"][..., None, None], output * 0.5, output)

    with Halving()(model), torch.inference_mode():
        expected = [model(input_ids=ids, past_key_values=cache).logits]
        expected += [model(input_ids=torch.tensor([[22]]), past_key_values=cache).logits]
        cache = StaticCache(config=model.config, max_cache_len=16)
        compiled = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
        found = [compiled(input_ids=ids, past_key_values=cache).logits]
        found += [compiled(input_ids=torch.tensor([[22]]), past_key_values=cache).logits]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-5
    torch._dynamo.reset()
