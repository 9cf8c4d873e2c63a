"""Hiding and pruning against masks made by hand, and the choice of random tokens."""

from __future__ import annotations

import pytest
import torch

from omnisink.errors import OmnisinkError
from omnisink.methods.criteria import MassiveActivation, Positions, RandomTokens
from omnisink.methods.knockout import KnockoutTokens, PruneTokens
from omnisink.methods.sink_method import SinkMethod
from omnisink.verification.families import FAMILIES
from tests.methods.reference_edits import PlainEdit, generated, padded, plain_run, run
from tests.reference_outro import FLEX_WARNING, prompt, tiny_llama

TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)


pytestmark = pytest.mark.usefixtures("flex_attention_uncompiled")


@FLEX_WARNING
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("backend", ["sdpa", "eager", "flex_attention"])
def test_hiding_everywhere_equals_a_mask_without_the_token(backend):
    model, ids = tiny_llama(backend), prompt(13, (0, 6))
    reference = tiny_llama("sdpa")
    allowed = torch.ones(16, 16).tril().bool()
    allowed[:, [0, 6]] = False
    allowed[[0, 6]] = torch.ones(16, 16).tril().bool()[[0, 6]]
    whole = torch.cat([ids, torch.tensor([CONTINUATION])], dim=1)
    with torch.inference_mode():
        expected = reference(input_ids=whole, attention_mask=allowed[None, None]).logits[0]
    with KnockoutTokens(Positions((0, 6)), layers=range(6))(model):
        found = run(model, ids, CONTINUATION)
    assert (found - expected).abs().max() < TOLERANCE
    assert (found - run(model, ids, CONTINUATION)).abs().max() > 20 * TOLERANCE


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_greedy_tokens_of_a_padded_batch_are_those_computed_by_hand(cache):
    model, rows = tiny_llama(), [prompt(13, (0, 6)), prompt(8)]
    with KnockoutTokens()(model):
        logits, tokens = generated(model, padded(rows), **cache)
    for b, ids in enumerate(rows):
        plain = PlainEdit(model, hide=lambda plain, layer, _: plain.sinks.get(layer, []))
        with torch.inference_mode():
            expected = [plain.prefill(ids)[-1]]
            for _ in range(3):
                expected.append(plain.step(int(expected[-1].argmax())))
        assert tokens[b].tolist() == [int(step.argmax()) for step in expected]
        assert (logits[b].double() - torch.stack(expected)).abs().max() < TOLERANCE


def test_hidden_tokens_keep_their_own_rows():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    with KnockoutTokens(Positions((0, 6)), layers=(1,))(model), torch.inference_mode():
        found = model(input_ids=ids, output_hidden_states=True).hidden_states
    with torch.inference_mode():
        bare = model(input_ids=ids, output_hidden_states=True).hidden_states
    moved = (found[2] - bare[2]).abs().amax(dim=-1)[0] > 1e-6
    assert moved.tolist() == [t not in (0, 6) for t in range(13)]


def top(scores, candidates, count):
    """Return the candidates with the highest scores, one at a time."""
    return sorted(sorted(candidates, key=lambda t: -scores[t])[:count])


@pytest.mark.parametrize(("keep", "count"), [(0.2, 2), (0.5, 4), (0.01, 1), (1.0, 8)])
def test_pruning_keeps_what_the_sinks_query_looks_at_most(keep, count):
    model, ids = tiny_llama(), prompt(13)
    offered = [2, 3, 4, 6, 7, 8, 9, 12]
    candidates = torch.zeros(1, 13, dtype=torch.bool)
    candidates[0, offered] = True
    kept = []

    def hide(plain, layer, query):
        if layer == 2 and not kept:
            keys = plain.keys[2].repeat_interleave(2, dim=0)
            scores = (keys @ query[:, 0, :, None])[..., 0] / 12**0.5
            kept.extend(top(scores.softmax(dim=-1).mean(dim=0).tolist(), offered, count))
        return set(offered) - set(kept) if layer > 2 else []

    expected = plain_run(PlainEdit(model, hide=hide), ids, CONTINUATION)
    assert len(kept) == count
    with PruneTokens(candidates=candidates, layer=2, keep=keep)(model):
        found = run(model, ids, CONTINUATION)
    assert (found.double() - expected).abs().max() < TOLERANCE
    away = Positions(tuple(set(offered) - set(kept)))
    with KnockoutTokens(away, layers=(3, 4, 5))(model):
        same = run(model, ids, CONTINUATION)
    assert (found - same).abs().max() < TOLERANCE
    if keep < 1:
        assert (found - run(model, ids, CONTINUATION)).abs().max() > 10 * TOLERANCE


def pruned(method, model, inputs):
    """What a pruning hides after its layer, (B, S)."""
    seen = []

    class Watching(type(method)):
        def _rank(self, call, context):
            seen.append(super()._rank(call, context))
            return seen[-1]

    with Watching(**vars(method))(model), torch.inference_mode():
        model(**inputs)
    return seen[0]


@pytest.mark.parametrize(("keep", "count", "left"), [(0.09, 300, 27), (0.28, 25, 7), (0.28, 26, 8), (0.2, 5, 1)])
@pytest.mark.parametrize("by", ["sink", "random"])
def test_pruning_keeps_exactly_the_share_rounded_up(keep, count, left, by):
    model, length = tiny_llama(), count + 3
    candidates = torch.ones(1, length, dtype=torch.bool)
    candidates[0, :3] = False
    gone = pruned(PruneTokens(candidates=candidates, layer=1, keep=keep, by=by), model, {"input_ids": prompt(length)})
    assert int(gone.sum()) == count - left
    assert not (gone & ~candidates).any()


def test_padding_is_no_candidate():
    model, inputs = tiny_llama(), padded([prompt(13), prompt(8)])
    everything = torch.ones(2, 13, dtype=torch.bool)
    gone = pruned(PruneTokens(candidates=everything, layer=1, keep=0.5), model, inputs)
    assert gone.sum(dim=1).tolist() == [6, 4]
    assert not gone[inputs["attention_mask"] == 0].any()


def test_random_pruning_is_reproducible_and_depends_on_its_seed():
    model, inputs = tiny_llama(), {"input_ids": prompt(40)}
    offered = torch.ones(1, 40, dtype=torch.bool)
    first, again, other = (
        pruned(PruneTokens(candidates=offered, layer=1, keep=0.5, by="random", seed=s), model, inputs)
        for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_tokens_are_as_many_as_the_criterions_and_none_of_them(seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 20, 8, generator=generator)
    hidden[0, [0, 4, 5], 2] = 5000.0
    hidden[1, [9], 1] = 5000.0
    hidden[2, 3:, 1] = 5000.0  # more sinks than others
    token_mask = torch.ones(3, 20, dtype=torch.bool)
    token_mask[1, :7] = False
    like = MassiveActivation()
    chosen = RandomTokens(like, seed)(hidden, token_mask)
    marked = like(hidden, token_mask)
    assert marked.sum(dim=1).tolist() == [3, 1, 17]
    assert chosen.sum(dim=1).tolist() == [3, 1, 3]
    assert not (chosen & (marked | ~token_mask)).any()
    assert torch.equal(chosen, RandomTokens(like, seed)(hidden, token_mask))
    assert torch.equal(chosen[1, 7:], RandomTokens(like, seed)(hidden[1:2, 7:], None)[0])
    assert torch.equal(chosen[0], RandomTokens(like, seed)(hidden[:1], None)[0])


def test_random_tokens_are_spread_evenly():
    hidden = torch.randn(1, 11, 8)
    hidden[0, 0, 2] = 5000.0
    counts = sum(RandomTokens(MassiveActivation(), seed)(hidden, None)[0].int() for seed in range(2000))
    assert counts[0] == 0
    assert ((counts[1:] - 200).abs() < 60).all()  # over four standard deviations


def test_positions_count_from_the_first_real_token():
    token_mask = torch.ones(2, 9, dtype=torch.bool)
    token_mask[1, :4] = False
    found = Positions((0, 3, 7))(torch.zeros(2, 9, 4), token_mask)
    assert [row.nonzero().flatten().tolist() for row in found] == [[0, 3, 7], [4, 7]]
    assert Positions((1,))(torch.zeros(1, 3, 4), None).tolist() == [[False, True, False]]
    assert not Positions(())(torch.zeros(1, 3, 4), None).any()


def test_learned_sinks_are_refused():
    family = FAMILIES["gpt_oss"]
    model = family.build(attn_implementation="eager")
    with pytest.raises(OmnisinkError, match=r"KnockoutTokens.*learned sink"), KnockoutTokens()(model):
        run(model, family.inputs(model)["input_ids"][:1])


@pytest.mark.parametrize("method", [KnockoutTokens(), PruneTokens(layer=0)], ids=lambda m: type(m).__name__)
def test_a_cache_that_has_forgotten_the_prompt_is_refused(method):
    family = FAMILIES["mistral_window"]
    model = family.build()
    inputs = {k: v[:1] for k, v in family.inputs(model).items()}
    if isinstance(method, PruneTokens):
        method = PruneTokens(candidates=torch.ones(1, 16, dtype=torch.bool), layer=0)
    assert isinstance(method, SinkMethod)
    with (
        pytest.raises(OmnisinkError, match=f"layer [01] keeps .* of 16 tokens: {type(method).__name__}"),
        method(model),
    ):
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
