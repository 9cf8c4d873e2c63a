"""Twins of a pass: the same model with other inputs, caches of their own, and logits that are combined."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from omnisink import OmnisinkError, OutRo, UnsupportedModelError
from omnisink.methods.ablation import ZeroHeads
from omnisink.methods.contrast import Branch, Contrast
from omnisink.methods.plausible import PlausibleTokens
from tests.reference_outro import prompt, tiny_llama

STEPS = 6
CACHES = {"dynamic": {}, "static": {"cache_implementation": "static", "disable_compile": True}}


def other_word(inputs):
    """The second real token is another word."""
    ids = inputs["input_ids"].clone()
    first = inputs["attention_mask"].argmax(dim=1) if "attention_mask" in inputs else torch.zeros(len(ids)).long()
    ids[torch.arange(len(ids)), first + 1] = 5
    return {"input_ids": ids}


def longer_prompt(inputs):
    """Three words more before the last four."""
    ids = inputs["input_ids"]
    made = {"input_ids": torch.cat([ids[:, :-4], torch.full_like(ids[:, :3], 11), ids[:, -4:]], dim=1)}
    if (mask := inputs.get("attention_mask")) is not None:
        made["attention_mask"] = torch.cat([mask[:, :-4], torch.ones_like(mask[:, :3]), mask[:, -4:]], dim=1)
    return made


CHANGES = {"another word": other_word, "a longer prompt": longer_prompt}


@dataclass(frozen=True)
class Changed(Contrast):
    """Contrast with a changed prompt, and with methods of its own."""

    change: str = "another word"
    methods: tuple = ()
    seen: list = field(default_factory=list, compare=False)

    def branches(self, context):
        return [Branch(CHANGES[self.change], self.methods)]

    def combine(self, first, twins):
        self.seen.append((first.clone(), twins[0].clone()))
        return super().combine(first, twins)


def ours(model, ids, method, **options):
    with method(model):
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS, do_sample=False, **options
        )
    return made[:, ids.shape[1] :].tolist()


def restated(model, ids, change, alpha, beta):
    """Both prompts are read anew for every token, in float64 after the model."""
    own, other = ids, CHANGES[change]({"input_ids": ids})["input_ids"]
    found = []
    with torch.inference_mode():
        for _ in range(STEPS):
            z, y = (model(row).logits[0, -1].double() for row in (own, other))
            chances = z.softmax(dim=-1)
            score = ((1 + alpha) * z - alpha * y).masked_fill(chances < beta * chances.max(), -torch.inf)
            token = score.argmax()[None, None]
            own, other = torch.cat([own, token], dim=1), torch.cat([other, token], dim=1)
            found.append(int(token))
    return found


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.1), (2.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("cache", CACHES)
def test_greedy_tokens_are_those_of_two_prompts_read_anew(cache, change, alpha, beta):
    model, ids = tiny_llama(), prompt(13, (0, 4))
    expected = restated(model, ids, change, alpha, beta)
    assert ours(model, ids, Changed(alpha, beta, change), **CACHES[cache]) == [expected]
    if (alpha, beta) == (2.0, 0.0):
        assert expected != restated(model, ids, change, 0.0, 0.0)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("cache", CACHES)
def test_a_left_padded_batch_gives_each_prompt_what_it_gets_by_itself(cache, change):
    model = tiny_llama()
    prompts = [prompt(17, (0, 8)), prompt(11, (2,)), prompt(8, ())]
    ids, mask = torch.zeros(3, 17, dtype=torch.long), torch.zeros(3, 17, dtype=torch.long)
    for row, one in enumerate(prompts):
        ids[row, 17 - one.shape[1] :], mask[row, 17 - one.shape[1] :] = one[0], 1
    method = Changed(2.0, 0.0, change)
    with method(model):
        together = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, **CACHES[cache]
        )
    for row, one in enumerate(prompts):
        assert together[row, 17:].tolist() == restated(model, one, change, 2.0, 0.0)


@pytest.mark.parametrize("change", CHANGES)
def test_the_models_own_logits_stay_what_they_are(change):
    model, ids = tiny_llama(), prompt(13, (0, 4))
    method = Changed(0.0, 0.0, change)  # Both run, and the model's own are used.
    assert ours(model, ids, method) == ours(model, ids, ZeroHeads(()))
    plain = model.generate(
        input_ids=ids, max_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    assert len(method.seen) == STEPS
    for (first, twin), alone in zip(method.seen, plain.logits, strict=True):
        assert torch.equal(first[:, -1], alone)
        assert not torch.equal(twin[:, -1], alone)


def test_without_contrast_and_cut_logits_are_bit_identical():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    bare = model(ids).logits
    with Changed(0.0, 0.0)(model):
        assert torch.equal(model(ids).logits, bare)
    assert torch.equal(model(ids).logits, bare)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("change", CHANGES)
def test_beams_and_several_answers_reorder_the_twins_cache(change):
    model, ids = tiny_llama(), prompt(13, (0, 4))
    method = Changed(2.0, 0.0, change)
    options = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 4, "num_return_sequences": 2}
    with method(model):
        kept = model.generate(input_ids=ids, **options)
        # Without a cache, both prompts are read anew for every token, so that nothing has to be reordered.
        anew = model.generate(input_ids=ids, use_cache=False, **options) if change == "another word" else kept
    assert kept.tolist() == anew.tolist()
    assert kept.shape == (2, 13 + STEPS)
    assert kept[0].tolist() != kept[1].tolist()


def test_sampling_draws_the_same_with_the_same_seed():
    model, ids = tiny_llama(), prompt(13, (0, 4))

    def draw():
        torch.manual_seed(3)
        with Changed(2.0, 0.1)(model):
            return model.generate(input_ids=ids, max_new_tokens=STEPS, do_sample=True, temperature=2.0).tolist()

    assert draw() == draw()


class AfterTwo(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= 15, dtype=torch.bool)


def test_stopping_criteria_end_both():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    method = Changed(2.0, 0.0)
    with method(model):
        made = model.generate(input_ids=ids, max_new_tokens=9, stopping_criteria=StoppingCriteriaList([AfterTwo()]))
    assert made.shape[1] == 15
    assert len(method.seen) == 2


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["copied", "cropped", "reset"])
def test_what_is_done_to_a_cache_is_done_to_the_twins(change, kind):
    model, ids = tiny_llama(), prompt(13, (0, 4))
    token = torch.tensor([[21]])
    method = Changed(1.0, 0.0, change)
    with method(model), torch.inference_mode():
        cache = StaticCache(config=model.config, max_cache_len=40) if kind == "reset" else DynamicCache()
        model(ids, past_key_values=cache)
        if kind == "reset":
            model(token, past_key_values=cache)
            cache.reset()
            model(ids, past_key_values=cache)
        expected = model(token, past_key_values=copy.deepcopy(cache)).logits
        if kind == "copied":
            branch = copy.deepcopy(cache)
            model(torch.tensor([[30]]), past_key_values=cache)  # Which moves the cache and its twin, and not the copy.
            found = model(token, past_key_values=branch).logits
        elif kind == "cropped":
            model(torch.tensor([[30]]), past_key_values=cache)
            cache.crop(-1)
            found = model(token, past_key_values=cache).logits
        else:
            found = model(token, past_key_values=cache).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_method_of_a_branch_acts_there_only():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    heads = ZeroHeads(((2, 0), (2, 1), (3, 2)))
    with torch.inference_mode():
        bare = model(ids).logits[:, -1]
        with heads(model):
            changed = model(other_word({"input_ids": ids})["input_ids"]).logits[:, -1]
        method = Changed(1.0, 0.0, methods=(heads,))
        with method(model):
            model(ids)
    first, twin = method.seen[0]
    assert torch.equal(first[:, -1], bare)
    assert torch.equal(twin[:, -1], changed)


@pytest.mark.parametrize("outro_first", [True, False])
def test_outro_acts_in_every_branch_with_a_state_of_its_own(outro_first):
    model, ids = tiny_llama(), prompt(13, (0, 4))
    outro, method = OutRo(gamma=1.0), Changed(1.0, 0.0, "a longer prompt")
    outer, inner = (outro, method) if outro_first else (method, outro)
    with outer(model) as one, inner(model) as other:
        together = model.generate(input_ids=ids, max_new_tokens=STEPS, do_sample=False)
    trace = one if outro_first else other
    assert trace.record.length == 13  # What is shown is the model's own prompt, not the twin's.
    assert trace.sinks.positions(0) == [0, 4]

    def with_outro(rows):
        with outro(model):
            return model(rows).logits[0, -1]

    own, found = ids, []
    other_ids = longer_prompt({"input_ids": ids})["input_ids"]
    keeps = [DynamicCache(), DynamicCache()]
    with torch.inference_mode(), outro(model):
        rows = [own, other_ids]
        for _ in range(STEPS):
            z, y = (model(r, past_key_values=c).logits[0, -1] for r, c in zip(rows, keeps, strict=True))
            token = (2 * z - y).argmax()[None, None]
            rows = [token, token]
            found.append(int(token))
    assert together[0, 13:].tolist() == found


def test_the_block_can_end_in_an_error():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    bare = model(ids).logits
    with pytest.raises(ZeroDivisionError), Changed()(model):
        model(ids)
        raise ZeroDivisionError
    assert torch.equal(model(ids).logits, bare)

    @dataclass(frozen=True)
    class Breaks(Changed):
        def combine(self, first, twins):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Breaks()(model):
        model(ids)
    with Changed(2.0, 0.0)(model):
        assert not torch.equal(model(ids).logits, bare)
    assert torch.equal(model(ids).logits, bare)


def test_a_copy_of_the_model_is_refused_in_the_block_and_runs_by_itself_after_it():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    expected = model(ids).logits
    with Changed(beta=0.0)(model):
        made = copy.deepcopy(model)
        with pytest.raises(UnsupportedModelError, match="copy of the LlamaModel that Changed is on"):
            made(ids)
        assert not torch.equal(model(ids).logits, expected)
    assert torch.equal(made(ids).logits, expected)


def test_what_cannot_have_twins_is_refused():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    with pytest.raises(UnsupportedModelError, match="language head"), Changed()(model.model):
        pass
    with pytest.raises(UnsupportedModelError, match="return_dict=True"), Changed()(model):
        model(ids, return_dict=False)
    with pytest.raises(OmnisinkError, match="already"), Changed()(model), Changed()(model):
        pass

    class Other(Changed):
        pass

    with (
        pytest.raises(OmnisinkError, match="Other and Changed both run further passes"),
        Changed()(model),
        Other()(model),
    ):
        pass
    bare = model(ids).logits
    with PlausibleTokens(beta=0.0)(model), Changed(1.0, 0.0)(model):  # It has no branch, and may stand beside one.
        assert not torch.equal(model(ids).logits, bare)
    with Other(1.0, 0.0)(model):
        assert not torch.equal(model(ids).logits, bare)


def test_a_compiled_model_has_twins_beside_its_graph():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    with Changed(2.0, 0.0, "a longer prompt")(model), torch.inference_mode():
        expected = model(ids).logits
        found = torch.compile(model, backend="eager")(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)
