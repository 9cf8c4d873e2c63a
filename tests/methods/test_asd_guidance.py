"""ASD's guidance: its second pass, its weights token by token, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch

from omnisink import OmnisinkError, UnsupportedModelError
from omnisink.methods.asd import ASD
from omnisink.methods.asd_guidance import ASDGuidance, next_weight
from omnisink.methods.criteria import Positions, SinkDimension
from omnisink.methods.registry import parse_method
from tests.methods.reference_weights import PlainAsd
from tests.methods.weight_cases import IMAGE, SINKS, SOUND, on, places, spanned
from tests.reference_outro import prompt, tiny_llama

STEPS = 4
OPTIONS = {"max_new_tokens": STEPS, "do_sample": False, "suppress_tokens": [IMAGE, SOUND]}
#: More sinks than cross-modal ones, so that some stay.
METHOD = ASDGuidance(8.0, criterion=Positions((*SINKS, 5, 6, 8, 10)), strength=3.0, start=2, share=1.0, watched=(3, 4))
SETTINGS = [one.name for one in fields(METHOD)]


class Seen(ASDGuidance):
    """Keeps the logits that it is given."""

    def combine_pass(self, context, first, twins):
        LOGITS.append((first[:, -1].clone(), twins[0][:, -1].clone()))
        made = super().combine_pass(context, first, twins)
        LOGITS[-1] += (made[:, -1].clone(), context.now.state.tensors["weight of the guidance"].clone())
        return made


LOGITS: list[tuple[torch.Tensor, ...]] = []


def expected_weight(c, u, text, alpha):
    w = c / (c + u)
    weight = min(0.6, alpha * w)
    if text > 0.4:
        weight *= 0.5 * (1 + math.cos(math.pi * min(1.0, (text - 0.4) / 0.2)))
    return weight * (w / 0.6) ** 2 if w < 0.6 else weight


@pytest.mark.parametrize("text", [0.1, 0.45, 0.55, 0.9])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
def test_the_weight_follows_the_schedule(alpha, text):
    for c, u in ((0.2, 0.1), (0.1, 0.2), (0.0, 0.3), (0.01, 0.0)):
        found = next_weight(*(torch.tensor([one]) for one in (c, u, text)), alpha)
        assert float(found) == pytest.approx(expected_weight(c, u, text, alpha), abs=1e-6)
    assert float(next_weight(torch.zeros(1), torch.zeros(1), torch.zeros(1), alpha)) == 0.0


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static", "disable_compile": True}])
def test_the_second_pass_is_that_of_asd_and_weights_are_those_of_maps(cache):
    model, ids = tiny_llama(attn_implementation="eager"), spanned()
    method = Seen(**{name: getattr(METHOD, name) for name in SETTINGS})
    LOGITS.clear()
    with on(method, model, {"input_ids": ids}):
        made = model.generate(ids, **OPTIONS, **cache)
    asd = ASD(METHOD.criterion, strength=3.0, start=2, share=1.0)
    sinks = dict.fromkeys(range(2), METHOD.criterion.positions)
    plain = PlainAsd(model, **places(ids), strength=3.0, start=2, share=1.0, sinks_by_layer=sinks)
    with torch.no_grad():
        plain.prefill(ids)
    crossing = plain.crossing
    staying = [t for t in METHOD.criterion.positions if int(ids[0, t]) in (IMAGE, SOUND) and t not in crossing]
    assert staying
    weight, past = 0.0, None
    with torch.inference_mode(), on(asd, model, {"input_ids": ids}):
        for step, (_, boosted, _, _) in enumerate(LOGITS):
            token = ids if step == 0 else made[:, ids.shape[1] + step - 1, None]
            out = model(token, past_key_values=past, use_cache=True)
            past = out.past_key_values
            assert torch.allclose(boosted, out.logits[:, -1], atol=1e-5)
    with torch.inference_mode():
        for step, (first, boosted, used, found) in enumerate(LOGITS):
            length = ids.shape[1] + step
            out = model(made[:, :length], output_attentions=True)
            assert torch.allclose(first, out.logits[:, -1], atol=1e-5)
            if step:
                row = torch.stack([out.attentions[layer][0, :, -1] for layer in METHOD.watched]).mean(dim=(0, 1))
                text = [t for t in range(3, length) if int(made[0, t]) not in (IMAGE, SOUND)]
                look = (float(row[crossing].mean()), float(row[staying].mean()), float(row[text].sum()))
                weight = weight / 2 + expected_weight(*look, METHOD.alpha) / 2
            assert float(found) == pytest.approx(weight, abs=1e-5)
            assert torch.allclose(used, first + weight * (boosted - first), atol=1e-4)
    assert weight > 0


def test_a_padded_batch_with_beams_gives_each_prompt_what_it_gets_by_itself():
    model = tiny_llama()
    one, two = spanned(), spanned(12, (2, 3, 4), (5, 8, 9), seed=3)
    ids = torch.cat([one, torch.cat([torch.zeros(1, 5, dtype=torch.long), two], dim=1)])
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    method = replace(METHOD, alpha=4.0)
    options = {**OPTIONS, "num_beams": 2}
    with on(method, model, {"input_ids": ids, "attention_mask": mask}):
        together = model.generate(ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    for row, alone in enumerate((one, two)):
        with on(method, model, {"input_ids": alone}):
            assert model.generate(alone, **options)[0, alone.shape[1] :].tolist() == together[row].tolist()


def test_what_is_not_guided_is_the_models_own():
    model, ids = tiny_llama(), spanned()
    with torch.inference_mode():
        bare = model(ids).logits
        with on(METHOD, model, {"input_ids": ids}) as trace:
            assert torch.equal(model(ids).logits, bare)
            assert not trace.skipped_layers
            assert torch.equal(model(ids, use_cache=False).logits, bare)
            assert set(trace.skipped_layers) == {3, 4}
    text = prompt(9)
    plain = model.generate(text, **OPTIONS)
    with on(METHOD, model, {"input_ids": text}):
        assert torch.equal(model.generate(text, **OPTIONS), plain)


def test_models_and_settings_that_do_not_fit_are_refused():
    model = tiny_llama()
    with pytest.raises(OmnisinkError, match="lower start"), ASDGuidance(start=6)(model):
        pass
    with pytest.raises(OmnisinkError, match="watches the attention of layers"), replace(METHOD, watched=(9,))(model):
        pass
    with pytest.raises(UnsupportedModelError, match="acts on image or video"), METHOD(model):
        model(prompt(9))
    for given in ({"alpha": -1.0}, {"strength": -1.0}, {"start": 0}, {"watched": ()}):
        with pytest.raises(ValueError, match=next(iter(given))):
            ASDGuidance(**given)
    assert parse_method("asd-guidance:qwen2.5-omni-7b") == ASDGuidance(criterion=SinkDimension((458, 2570), 25.0))
    assert ASDGuidance().watched_layers(28) == tuple(range(18, 26))
