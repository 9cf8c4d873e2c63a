"""Methods that change attention weights, on a Llama with image and audio tokens, against their restatements."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.methods.reference_edits import generated, padded, plain_run, run
from tests.methods.weight_cases import BACKENDS, CASES, CONTINUATION, TOLERANCE, in_turn, on, prompts, spanned
from tests.reference_outro import FLEX_WARNING, tiny_llama

pytestmark = [
    pytest.mark.usefixtures("flex_attention_uncompiled"),
    FLEX_WARNING,
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
]


@pytest.mark.parametrize(("name", "backend"), [*in_turn(CASES, BACKENDS), *in_turn(CASES, BACKENDS, 1)])
def test_prompt_and_generated_tokens_equal_the_restatement(name, backend):
    model, case = tiny_llama(backend), CASES[name]
    for ids in (spanned(), prompts()[2]):
        expected = plain_run(case.plain(model, ids), ids, CONTINUATION)
        with on(case.method, model, {"input_ids": ids}):
            found = run(model, ids, CONTINUATION)
            # Where it is not compiled, flex attention on a static cache differs from a dynamic one without any method.
            static = found if backend == "flex_attention" else run(model, ids, CONTINUATION, "static")
        assert (found.double() - expected).abs().max() < TOLERANCE
        assert (static.double() - expected).abs().max() < TOLERANCE
        bare = run(model, ids, CONTINUATION)
        assert (bare.double() - expected).abs().max() > 20 * TOLERANCE  # or agreeing would prove nothing


@pytest.mark.parametrize(("name", "cache"), in_turn(CASES, ({}, {"cache_implementation": "static"})))
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name, cache):
    model, method = tiny_llama(), CASES[name].method
    rows = prompts()
    inputs = padded(rows)
    with on(method, model, inputs):
        together, tokens = generated(model, inputs, **cache)
    for b, row in enumerate(rows):
        one = padded([row])
        with on(method, model, one):
            alone, same_tokens = generated(model, one, **cache)
        assert (together[b] - alone[0]).abs().max() < TOLERANCE
        assert tokens[b].tolist() == same_tokens[0].tolist()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_one_padded_prompt_is_what_it_is_without_padding(name, side):
    model, row = tiny_llama(), prompts()[1]
    inputs = {k: v[:1] for k, v in padded([row, spanned(21)], side).items()}
    token_mask = inputs["attention_mask"].bool()
    place = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode():
        with on(CASES[name].method, model, inputs):
            found = model(**inputs, position_ids=place).logits[token_mask]
        with on(CASES[name].method, model, padded([row])):
            expected = model(input_ids=row).logits[0]
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["var", "var: release", "asd", "asd: strong"])
def test_a_decode_step_is_the_prefill_of_the_same_token(name):
    model, ids = tiny_llama(), spanned()
    whole = torch.cat([ids, torch.tensor([CONTINUATION])], dim=1)
    with on(CASES[name].method, model, {"input_ids": ids}):
        steps = run(model, ids, CONTINUATION)
    with on(CASES[name].method, model, {"input_ids": whole}):
        at_once = run(model, whole)
    assert (steps - at_once).abs().max() < TOLERANCE


def plain_beam_search(root, ids, beams, steps):
    with torch.inference_mode():
        live = [(0.0, [], root, root.prefill(ids)[-1])]
        for _ in range(steps):
            grown = []
            for score, tokens, state, logits in live:
                best = logits.log_softmax(-1).topk(beams)
                grown += [(score + float(p), [*tokens, int(t)], state) for p, t in zip(*best, strict=True)]
            grown = sorted(grown, key=lambda g: -g[0])[:beams]
            live = []
            for score, tokens, state in grown:
                branch = copy.copy(state)
                branch.keys, branch.values = list(state.keys), list(state.values)
                live.append((score, tokens, branch, branch.step(tokens[-1])))
    return live[0][1]


@pytest.mark.parametrize("name", ["var", "pai: strong", "asd: strong", "act", "visflow: both"])
def test_beams_keep_what_belongs_to_their_prompt(name):
    model, case = tiny_llama(), CASES[name]
    rows = [spanned(15, seed=1), prompts()[2]]
    inputs = padded(rows)
    options = {"num_beams": 3, "max_new_tokens": 4, "do_sample": False, "length_penalty": 0.0, "early_stopping": False}
    with on(case.method, model, inputs):
        found = model.generate(**inputs, **options)
    for b, ids in enumerate(rows):
        assert found[b, 15:].tolist() == plain_beam_search(case.plain(model, ids), ids, 3, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["var", "pai", "asd", "act: heads", "visflow"])
def test_half_precision_stays_near_the_restatement(name, dtype):
    model, ids = tiny_llama(), spanned()
    expected = plain_run(CASES[name].plain(model, ids), ids)
    model = model.to(dtype)
    with on(CASES[name].method, model, {"input_ids": ids}):
        found = run(model, ids)
    assert found.dtype == dtype
    slack = {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype] * float(expected.abs().max()) * 16
    assert (found.double() - expected).abs().max() < slack
