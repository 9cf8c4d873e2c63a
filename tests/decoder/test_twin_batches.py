"""Twins whose steps are one batch give what each gives in steps of its own."""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from transformers import DynamicCache

from omnisink import OutRo
from omnisink.decoder import twin_state
from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.branches import FIRST, TOGETHER, current_branch
from omnisink.methods.ablation import ZeroHeads
from omnisink.methods.avcd import AVCD
from omnisink.methods.base import Method
from omnisink.methods.contrast import Branch, Contrast
from omnisink.verification.families import FAMILIES
from tests.decoder.test_twins import STEPS, longer_prompt, other_word
from tests.reference_outro import prompt, tiny_llama

HEADS = ZeroHeads(((2, 0), (2, 1), (3, 2)))


@dataclass(frozen=True)
class HalfPrompt(Method):
    """Head outputs of the prompt are halved, and those of later tokens are not."""

    in_steps: ClassVar[str] = "nothing"

    def head_output(self, call, output, context):
        return output / 2 if context.now.is_prefill else output


def same(inputs):
    return {}


#: For each twin, its inputs and its methods; and whether all of them can make one pass of a step.
KINDS = {
    "words": ([(other_word, ()), (same, (HalfPrompt(),)), (other_word, (HalfPrompt(),))], True),
    "longer prompts": ([(longer_prompt, ()), (longer_prompt, (HalfPrompt(),))], True),
    "two lengths": ([(longer_prompt, ()), (other_word, ())], False),
    "a method in the steps of one": ([(other_word, ()), (same, (HEADS,))], False),
    "one method in the steps of each": ([(other_word, (HEADS,)), (same, (HEADS,))], False),
}


@dataclass(frozen=True)
class Several(Contrast):
    """Contrast with several branches, and remember the logits of all."""

    kind: str = "words"
    seen: list = field(default_factory=list, compare=False)

    def branches(self, context):
        return [Branch(change, methods) for change, methods in KINDS[self.kind][0]]

    def combine(self, first, twins):
        self.seen.append((first.clone(), *(twin.clone() for twin in twins)))
        weighted = sum((-0.5) ** n * twin.double() for n, twin in enumerate(twins))
        return (2 * first.double() - weighted).to(first.dtype)


@contextmanager
def apart():
    """Let every twin make steps of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin_state, "in_one", lambda caches: None)
        yield


@contextmanager
def passes(model):
    """Count the passes of every branch, with their sequences."""
    counted = []

    def count(module, args, kwargs, output):
        hidden = output[0] if isinstance(output, tuple) else output.last_hidden_state
        counted.append((current_branch(), hidden.shape[1], len(hidden)))

    handle = read_anatomy(model).text_model.register_forward_hook(count, with_kwargs=True)
    try:
        yield counted
    finally:
        handle.remove()


def said(model, inputs, *methods, **options):
    flags = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, **options}
    flags |= {"return_dict_in_generate": True, "output_logits": True}
    with ExitStack() as stack, torch.inference_mode():
        for method in methods:
            stack.enter_context(method(model))
        got = model.generate(**inputs, **flags)
    return got.sequences, torch.stack(got.logits)


def padded():
    prompts = [prompt(17, (0, 8)), prompt(11, (2,)), prompt(8, ())]
    ids, mask = torch.zeros(3, 17, dtype=torch.long), torch.zeros(3, 17, dtype=torch.long)
    for row, one in enumerate(prompts):
        ids[row, 17 - one.shape[1] :], mask[row, 17 - one.shape[1] :] = one[0], 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("outro", [(), (OutRo(gamma=1.0),)], ids=["", "OutRo in all"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_together_are_those_of_each_by_itself(kind, outro):
    model, inputs = tiny_llama(), padded()
    together, each = Several(kind=kind), Several(kind=kind)
    with passes(model) as ran:
        ids, logits = said(model, inputs, *outro, together)
    with apart():
        expected_ids, expected = said(model, inputs, *outro, each)
    assert torch.equal(ids, expected_ids)
    assert torch.allclose(logits, expected, atol=1e-5)
    for ours, theirs in zip(together.seen, each.seen, strict=True):
        assert torch.equal(ours[0], theirs[0])  # The model's own, to the bit.
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours[1:], theirs[1:], strict=True))
    twins, joins = KINDS[kind]
    steps = [(branch, size) for branch, length, size in ran if length == 1 and branch != FIRST]
    assert steps == ([(TOGETHER, 3 * len(twins))] if joins else [(n, 3) for n, _ in enumerate(twins, 1)]) * (STEPS - 1)


@pytest.mark.parametrize("kind", ["words", "longer prompts"])
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}])
def test_beams_move_the_sequences_of_all(kind, options):
    model, inputs = tiny_llama(), padded()
    with apart():
        expected = said(model, inputs, OutRo(gamma=1.0), Several(kind=kind), **options)[0]
    assert torch.equal(said(model, inputs, OutRo(gamma=1.0), Several(kind=kind), **options)[0], expected)


@pytest.mark.parametrize("kind", ["words", "longer prompts"])
def test_a_cache_can_be_copied_and_cut_after_the_steps_have_become_one(kind):
    model, ids, token = tiny_llama(), prompt(13, (0, 4)), torch.tensor([[21]])
    with Several(kind=kind)(model), torch.inference_mode():
        cache = DynamicCache()
        model(ids, past_key_values=cache)
        expected = model(token, past_key_values=copy.deepcopy(cache)).logits
        model(torch.tensor([[30]]), past_key_values=cache)
        branch = copy.deepcopy(cache)
        model(torch.tensor([[31]]), past_key_values=cache)
        for one, gone in ((branch, 1), (cache, 2)):
            one.crop(-gone)
            assert torch.allclose(model(token, past_key_values=one).logits, expected, atol=1e-5)


@pytest.mark.parametrize("outro", [(), (OutRo(gamma=1.0),)], ids=["", "OutRo in all"])
@pytest.mark.parametrize("name", ["qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"])
def test_three_branches_of_avcd_make_one_pass_of_a_step(name, outro):
    model = FAMILIES[name].build()
    inputs = FAMILIES[name].multimodal_inputs(model)
    method = AVCD(alpha=2.5, entropy=0.0)
    with passes(model) as ran:
        ids, logits = said(model, inputs, *outro, method)
    with apart():
        expected_ids, expected = said(model, inputs, *outro, method)
    assert torch.equal(ids, expected_ids)
    assert torch.allclose(logits, expected, atol=1e-4)
    assert [branch for branch, length, _ in ran if length == 1] == [FIRST, TOGETHER] * (STEPS - 1)


def test_a_static_cache_keeps_its_steps_apart():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    with passes(model) as ran:
        said(model, {"input_ids": ids}, Several(), cache_implementation="static", disable_compile=True)
    assert {branch for branch, length, _ in ran if length == 1} == {FIRST, 1, 2, 3}
