"""AVCD against a restatement with attention maps, on omni models whose prompts have video and sound."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from omnisink import OmnisinkError
from omnisink.decoder.caches import stored_state
from omnisink.methods.avcd import AVCD
from omnisink.methods.registry import parse_method
from tests.methods.reference_avcd import answer, in_maps, model_and_inputs, restated, run

#: Ids that stand for pictures and sound, which the tiny model would say otherwise.
SILENT = list(range(1, 20))
GREEDY = {"max_new_tokens": 3, "do_sample": False, "suppress_tokens": SILENT}
STATIC = {"cache_implementation": "static", "disable_compile": True}


def logits_with(method, model, inputs):
    with torch.inference_mode(), method(model):
        return model(**inputs).logits[:, -1]


def batch_of(inputs, drop=5):
    """The prompt, and the same with some words less before its end, padded on the left."""
    ids = inputs["input_ids"]
    short = torch.cat([torch.zeros_like(ids[:, :drop]), ids[:, : -drop - 1], ids[:, -1:]], dim=1)
    mask = torch.ones_like(torch.cat([ids, ids]))
    mask[1, :drop] = 0
    media = {k: torch.cat([v, v]) for k, v in inputs.items() if k not in ("input_ids", "attention_mask")}
    alone = [{**inputs, "input_ids": one, "attention_mask": torch.ones_like(one)} for one in (ids, short[:, drop:])]
    return {**media, "input_ids": torch.cat([ids, short]), "attention_mask": mask}, alone


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("mask", ["rows", "columns"])
def test_logits_are_those_of_maps_whatever_dominates(mask, backend):
    model, inputs = model_and_inputs(backend)
    reference = in_maps(model)
    # Nothing of what dominates depends on the backend.
    for dominant in ("language", "video", "audio", "most attended") if backend == "sdpa" else ("language",):
        for per_token in (True, False) if dominant == "most attended" else (True,):
            method = AVCD(1.5, 0.0, entropy=0.0, dominant=dominant, mask=mask, per_token=per_token)
            expected = restated(reference, inputs, method)
            assert torch.allclose(logits_with(method, model, inputs).double(), expected, atol=2e-4)
            assert not torch.allclose(expected, 4 * run(reference, inputs)[0], atol=1e-2)


@pytest.mark.parametrize("remask", ["prefill", "step"])
@pytest.mark.parametrize("mask", ["rows", "columns"])
def test_greedy_answers_are_those_of_maps(mask, remask):
    model, inputs = model_and_inputs()
    method = AVCD(2.5, 0.05, entropy=0.0, mask=mask, remask=remask, dominant="most attended")
    expected = answer(in_maps(model), inputs, method, 3, SILENT)
    with method(model):
        dynamic = model.generate(**inputs, **GREEDY)
        static = model.generate(**inputs, **GREEDY, **STATIC)
    length = inputs["input_ids"].shape[1]
    assert dynamic[:, length:].tolist() == static[:, length:].tolist() == expected


@pytest.mark.parametrize(("mask", "remask"), [("rows", "prefill"), ("columns", "prefill"), ("columns", "step")])
def test_a_padded_batch_gives_each_prompt_what_it_gets_by_itself(mask, remask):
    model, inputs = model_and_inputs()
    together, alone = batch_of(inputs)
    method = AVCD(2.5, 0.0, entropy=0.0, mask=mask, remask=remask, dominant="most attended")
    options = {**GREEDY, "num_beams": 2}
    with method(model):
        made = model.generate(**together, **options)[:, together["input_ids"].shape[1] :]
        single = [model.generate(**one, **options)[0, one["input_ids"].shape[1] :] for one in alone]
    assert made.tolist() == [one.tolist() for one in single]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True}])
def test_deciding_at_every_step_is_deciding_in_prefills_without_a_cache(options):
    model, inputs = model_and_inputs()
    method = AVCD(2.5, 0.0, entropy=0.0, mask="columns", remask="step")
    with method(model):
        torch.manual_seed(1)
        kept = model.generate(**inputs, **{**GREEDY, **options})
    with replace(method, remask="prefill")(model):
        torch.manual_seed(1)
        anew = model.generate(**inputs, **{**GREEDY, **options}, use_cache=False)
    assert kept.tolist() == anew.tolist()


def test_the_gate_is_each_sequences_own_and_saves_the_passes_where_all_are_sure():
    model, inputs = model_and_inputs()
    together, _ = batch_of(inputs)
    with torch.inference_mode():
        bare = model(**together).logits
    entropy = torch.distributions.Categorical(logits=bare[:, -1].double()).entropy()
    gate = float(entropy.mean())
    assert entropy.min() < gate < entropy.max()
    sure = int(entropy.argmin())
    for remask in ("prefill", "step"):
        found = logits_with(AVCD(entropy=gate, remask=remask), model, together)
        assert torch.equal(found[sure], bare[sure, -1])
        assert not torch.equal(found[1 - sure], bare[1 - sure, -1])
    passes = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    for remask, expected in (("step", 1), ("prefill", 4)):
        passes.clear()
        assert torch.equal(logits_with(AVCD(entropy=1e9, remask=remask), model, together), bare[:, -1])
        assert len(passes) == expected
    hook.remove()


@pytest.mark.parametrize("mask", ["rows", "columns"])
def test_without_anything_masked_the_branches_are_the_model(mask):
    model, inputs = model_and_inputs()
    bare = model(**inputs).logits[:, -1]
    spans = {name: torch.zeros_like(inputs["input_ids"], dtype=torch.bool) for name in ("image", "video", "audio")}
    seen = []

    class Watched(AVCD):
        def combine(self, first, twins):
            seen.extend(twins)
            return super().combine(first, twins)

    with torch.inference_mode(), Watched(0.0, 0.0, entropy=0.0, mask=mask)(model, spans=spans):
        found = model(**inputs).logits[:, -1]
    assert len(seen) == 3
    assert all(torch.equal(twin[:, -1], bare) for twin in seen)
    assert torch.allclose(found, 4 * bare, atol=1e-5)


def test_a_cropped_or_copied_cache_is_read_on_from():
    model, inputs = model_and_inputs()
    tokens = [torch.tensor([[one]]) for one in (30, 31, 32)]
    with torch.inference_mode(), AVCD(entropy=0.0, mask="columns", remask="step")(model):
        cache = model(**inputs, use_cache=True).past_key_values
        kept = deepcopy(cache)
        first = [model(token, past_key_values=cache).logits for token in tokens]
        cache.crop(-2)
        again = [model(token, past_key_values=cache).logits for token in tokens[1:]]
        copied = [model(token, past_key_values=kept).logits for token in tokens]
    assert all(torch.equal(one, other) for one, other in zip(first, copied, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(first[1:], again, strict=True))


def test_prompts_that_cannot_be_read_again_are_refused():
    model, inputs = model_and_inputs()
    together, _ = batch_of(inputs)
    method = AVCD(entropy=0.0, remask="step")
    mask = torch.ones(2, together["input_ids"].shape[1] + 1, dtype=torch.long)
    step = {"input_ids": torch.full((2, 1), 30), "attention_mask": mask, "position_ids": torch.full((3, 2, 1), 60)}
    with torch.inference_mode(), method(model):
        cache = model(**together, use_cache=True).past_key_values
        assert stored_state(cache, ("twins", method)) is not None
        cache.reorder_cache(torch.tensor([1, 0]))
        with pytest.raises(OmnisinkError, match="another order"):
            model(**step, past_key_values=cache)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    ids = inputs["input_ids"]
    spans = {"video": ids == model.config.video_token_id, "audio": ids == model.config.audio_token_id}
    with torch.inference_mode(), method(model, spans=spans), pytest.raises(OmnisinkError, match="needs its ids"):
        model(inputs_embeds=embeds, position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1))


def test_settings_are_checked_and_named():
    bad = ({"entropy": -1.0}, {"quantile": 2.0}, {"dominant": "smell"}, {"mask": "diagonals"}, {"remask": "never"})
    for given in bad:
        with pytest.raises(ValueError, match=next(iter(given))):
            AVCD(**given)
    paper = AVCD(2.5, 0.1, mask="columns", dominant="most attended", per_token=False)
    assert parse_method("avcd:paper:avhbench") == paper
    release = AVCD(0.5, 0.2, mask="rows", dominant="most attended", per_token=True, remask="step")
    assert parse_method("avcd:release:every-step") == release
