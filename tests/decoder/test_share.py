"""Runs that share what comes before the first change give what each gives alone, to the bit."""

from __future__ import annotations

import pytest
import torch
from transformers import StaticCache

from omnisink import OutRo
from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.replay import share
from omnisink.methods.controls import OutRoControl
from omnisink.methods.find import SinkFinder
from omnisink.methods.plausible import PlausibleTokens
from omnisink.verification.families import FAMILIES
from tests.decoder.test_attachment import Failing, fingerprint
from tests.decoder.test_replay import MEDIA, counted, family_model, tower_parts
from tests.decoder.test_twins import Changed
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import ACCEPTED, MARKS

pytestmark = MARKS

#: The tiny models have five layers; their planted sinks are looked for from the third on.
LATE = OutRo(gamma=0.5, detect_layers=(2, 3), relax_layers=(2, 3))


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


def said(model, inputs, method=None, **options):
    """Generate three tokens; return their ids and logits."""
    flags = {"min_new_tokens": 3, "max_new_tokens": 3, "do_sample": False, **options}
    flags |= {"return_dict_in_generate": True, "output_logits": True}
    if method is None:
        got = model.generate(**inputs, **flags)
    else:
        with method(model) as trace:
            got = model.generate(**inputs, **flags)
        said.trace = trace
    return got.sequences, torch.stack(got.logits)


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("name", "first"), [(name, ("plain", "method")[i % 2]) for i, name in enumerate(ACCEPTED)])
def test_generation_is_the_same_to_the_bit(name, first):
    family = FAMILIES[name]
    model = family_model(name, family.backends[0])
    inputs = (family.multimodal_inputs or family.inputs)(model)
    anatomy = read_anatomy(model)
    plain, turned = said(model, inputs), said(model, inputs, LATE)
    skipped, rotated = said.trace.record.skipped, said.trace.rotated_tokens
    attention = {layer: site.module for layer, site in anatomy.attention.items()}
    with counted(attention) as calls:
        said(model, inputs)
    with share(anatomy), counted(attention) as shared:
        for method in (None, LATE, None, LATE) if first == "plain" else (LATE, None, LATE, None):
            shared.clear()
            assert equal(said(model, inputs, method), plain if method is None else turned)
            if method is not None:
                assert (said.trace.record.skipped, said.trace.rotated_tokens) == (skipped, rotated)
        assert all(shared[layer] < calls[layer] for layer in attention if layer < 2)
    assert equal(said(model, inputs), plain)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("name", "backend", "kind"), MEDIA)
def test_towers_run_once_also_where_generate_calls_them_before_the_model(name, backend, kind):
    model = family_model(name, backend)
    inputs = FAMILIES[name].multimodal_inputs(model)
    anatomy = read_anatomy(model)
    with share(anatomy), counted(tower_parts(anatomy)) as calls:
        plain = said(model, inputs)
        assert calls
        calls.clear()
        assert equal(said(model, inputs), plain)
        said(model, inputs, LATE)
        assert not calls


def test_only_the_layers_from_the_first_sink_on_run_again():
    model, inputs = tiny_llama(), {"input_ids": prompt(12, sinks=(0, 5))}
    anatomy = read_anatomy(model)
    layers = dict(enumerate(site.module for site in anatomy.attention.values()))
    late = OutRo(gamma=0.5, detect_layers=(3, 4))
    with share(anatomy), counted(layers) as calls:
        for method, ran in [(late, 6), (None, 3), (late, 3), (SinkFinder(), 6), (OutRo(detect_layers=()), 0)]:
            calls.clear()
            said(model, inputs, method, max_new_tokens=1, min_new_tokens=1)
            assert sum(calls.values()) == ran
        assert not said.trace.record.skipped


def test_the_last_run_records_nothing():
    model, inputs = tiny_llama(), {"input_ids": prompt(12, sinks=(0, 5))}
    anatomy = read_anatomy(model)
    layers = dict(enumerate(site.module for site in anatomy.attention.values()))
    with share(anatomy) as sharing, counted(layers) as calls:
        said(model, inputs, OutRo(gamma=0.5, detect_layers=(3, 4)), max_new_tokens=1, min_new_tokens=1)
        sharing.keeps = False
        for _ in range(2):
            calls.clear()
            said(model, inputs, max_new_tokens=1, min_new_tokens=1)
            assert sum(calls.values()) == 3


@pytest.mark.parametrize("first", range(3))
def test_methods_that_act_on_logits_leave_the_prompt_to_the_baseline(first):
    model, inputs = tiny_llama(), {"input_ids": prompt(12, sinks=(0, 5))}
    anatomy = read_anatomy(model)
    methods = [None, PlausibleTokens(), Changed(2.0, 0.0)]
    expected = [said(model, inputs, method) for method in methods]
    layers = dict(enumerate(site.module for site in anatomy.attention.values()))
    steps = 2 * len(layers)
    with share(anatomy), counted(layers) as calls:
        ran = []
        for number in (first, *(n for n in range(3) if n != first)):
            calls.clear()
            assert equal(said(model, inputs, methods[number]), expected[number])
            ran.append(sum(calls.values()) - steps * (2 if number == 2 else 1))
    # The twin has another prompt.
    assert sum(ran) == 2 * len(layers)


def test_a_method_that_looks_at_every_layer_is_shown_every_layer():
    model, inputs = tiny_llama(), {"input_ids": prompt(12, sinks=(0, 5))}
    toward = OutRoControl(gamma=0.5, detect_layers=(3, 4), direction="layer")
    expected = said(model, inputs, toward)
    with share(read_anatomy(model)):
        said(model, inputs)
        assert equal(said(model, inputs, toward), expected)


def test_another_prompt_is_run():
    model = FAMILIES["qwen2_5_omni_thinker"].build()
    inputs = FAMILIES["qwen2_5_omni_thinker"].multimodal_inputs(model)
    words = {**inputs, "input_ids": inputs["input_ids"].clone()}
    words["input_ids"][0, -1] += 1
    picture = {**inputs, "pixel_values_videos": inputs["pixel_values_videos"] + 1}
    longer = {k: v.repeat(2, *[1] * (v.dim() - 1)) for k, v in inputs.items()}
    alone = [said(model, other) for other in (inputs, words, picture, longer)]
    with share(read_anatomy(model)):
        for other, expected in zip((inputs, words, picture, longer, inputs), [*alone, alone[0]], strict=True):
            assert equal(said(model, other), expected)


def test_caches_of_other_kinds_and_none_at_all():
    model, inputs = tiny_llama(), {"input_ids": prompt(9, sinks=(2,))}
    late = OutRo(gamma=0.5, detect_layers=(3, 4))

    def static():
        return {"past_key_values": StaticCache(config=model.config, max_cache_len=16)}

    kinds = [dict, lambda: {"use_cache": False}, static, lambda: {"num_beams": 2}]
    for recorded in kinds:
        for kind in kinds:
            expected = said(model, inputs, late, **kind())
            with share(read_anatomy(model)):
                said(model, inputs, **recorded())
                assert equal(said(model, inputs, late, **kind()), expected)


def test_attention_weights_and_a_changed_layer_are_run():
    model, inputs = tiny_llama("eager"), {"input_ids": prompt(9), "use_cache": False}
    anatomy = read_anatomy(model)
    weights = model(**inputs, output_attentions=True).attentions
    with share(anatomy):
        plain = model(**inputs).logits
        assert equal(model(**inputs, output_attentions=True).attentions, weights)
        hook = anatomy.layers[1].register_forward_hook(lambda _, args, output: output + 1)
        assert not torch.equal(model(**inputs).logits, plain)
        hook.remove()
        assert torch.equal(model(**inputs).logits, plain)


def test_a_run_that_failed_is_not_shared_and_the_model_is_as_it_was():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    before, plain = fingerprint(model), said(model, inputs)
    with share(read_anatomy(model)):
        with pytest.raises(RuntimeError, match="on purpose"), Failing()(model):
            said(model, inputs)
        assert equal(said(model, inputs), plain)
        assert equal(said(model, inputs), plain)
    assert fingerprint(model) == before
