"""Fork-merge decoding against a restatement in float64, and its identities."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from omnisink import OmnisinkError, OutRo, UnsupportedModelError
from omnisink.methods.fork_merge import ForkMerge
from omnisink.methods.plausible import PlausibleTokens
from omnisink.methods.registry import parse_method
from omnisink.methods.sid import SID
from omnisink.verification.families import FAMILIES
from tests.methods.reference_branches import PlainForks, PlainLlama
from tests.methods.weight_cases import on, places, prompts, spanned, tiny_windowed
from tests.reference_outro import FLEX_WARNING, prompt, tiny_llama
from tests.verification.family_cells import reader, tiny

pytestmark = [FLEX_WARNING, pytest.mark.usefixtures("flex_attention_uncompiled")]

NEXT = (20, 31, 9)
FORK = {"fork_layer": 3, "video_weight": 0.3}
SAYS = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "suppress_tokens": list(range(1, 20))}


def stepped(model, ids, method, cache=None, tokens=NEXT, **inputs):
    """Logits of a prompt (S, V), and those after each of the tokens that follow."""
    found = []
    with on(method, model, {"input_ids": ids, **inputs}), torch.inference_mode():
        out = model(ids, past_key_values=cache, use_cache=True, **inputs)
        found.append(out.logits)
        for token in tokens:
            inputs = {name: torch.nn.functional.pad(one, (0, 1), value=1) for name, one in inputs.items()}
            out = model(torch.full((len(ids), 1), token), past_key_values=out.past_key_values, **inputs)
            found.append(out.logits)
    return found


def by_default(model, ids):
    """The same without a method."""
    return stepped(model, ids, PlausibleTokens(beta=0.0))


@pytest.mark.parametrize(
    ("backend", "kind", "settings"),
    [
        ("sdpa", "dynamic", FORK),
        ("sdpa", "static", FORK),
        ("eager", "dynamic", {"fork_layer": 5, "video_weight": 1.0}),
        ("eager", "static", {"fork_layer": 1, "video_weight": 0.0}),
        ("flex_attention", "dynamic", FORK),
    ],
    ids=str,
)
def test_prompt_and_steps_are_those_of_two_branches_merged(backend, kind, settings):
    model, ids = tiny_llama(backend), spanned(19, (3, 4, 5, 7), (8, 9, 11))
    cache = StaticCache(config=model.config, max_cache_len=32) if kind == "static" else DynamicCache()
    tokens = NEXT[:1] if backend == "flex_attention" else NEXT  # Uncompiled, it takes seconds for each.
    found = stepped(model, ids, ForkMerge(**settings), cache, tokens)
    where = places(ids)
    plain = PlainForks(
        PlainLlama(model), where["images"], where["audio"], settings["fork_layer"], settings["video_weight"]
    )
    with torch.inference_mode():
        assert torch.allclose(found[0][0].double(), plain.prefill(ids), atol=1e-4)
        for token, logits in zip(tokens, found[1:], strict=True):
            assert torch.allclose(logits[0, -1].double(), plain.step(torch.tensor([[token]])), atol=1e-4)
    bare = stepped(model, ids, PlausibleTokens(beta=0.0), tokens=tokens)
    assert not torch.allclose(found[0], bare[0], atol=1e-2)
    assert not torch.allclose(found[-1], bare[-1], atol=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "ids",
    [spanned(17, (3, 4, 5), ()), spanned(17, (), (8, 9)), prompt(13, (0, 4))],
    ids=["no sound", "no video", "text"],
)
def test_without_one_of_the_two_a_prompt_is_read_as_it_is(ids, weight):
    model = tiny_llama()
    for found, bare in zip(stepped(model, ids, ForkMerge(3, weight)), by_default(model, ids), strict=True):
        assert torch.equal(found, bare)
    with on(ForkMerge(3, weight), model, {"input_ids": ids}) as trace:
        model(ids)
    assert "no prompt has the tokens" in trace.skipped_layers[0]


def test_merging_at_the_first_layer_changes_nothing():
    model, ids = tiny_llama(), spanned()
    for found, bare in zip(stepped(model, ids, ForkMerge(0, 0.3)), by_default(model, ids), strict=True):
        assert torch.equal(found, bare)


def test_two_equal_runs_merge_to_what_they_are(monkeypatch):
    """Nothing is hidden in either, and both are run and merged."""
    model, ids = tiny_llama(), spanned()
    monkeypatch.setattr(ForkMerge, "attend", lambda self, call, context: None)
    runs = []
    model.model.layers[0].register_forward_hook(lambda *_: runs.append(1))
    found = stepped(model, ids, ForkMerge(3, 0.3))
    assert len(runs) == 2 + len(NEXT)
    for one, bare in zip(found, by_default(model, ids), strict=True):
        assert torch.equal(one, bare)


def test_steps_run_once_and_the_model_is_as_it_was():
    model, ids = tiny_llama(), spanned()
    calls = dict.fromkeys(range(6), 0)

    def count(number):
        calls[number] += 1

    hooks = [
        layer.register_forward_hook(lambda *_, number=number: count(number))
        for number, layer in enumerate(model.model.layers)
    ]
    stepped(model, ids, ForkMerge(2))
    for hook in hooks:
        hook.remove()
    assert calls == {n: (2 if n < 2 else 1) + len(NEXT) for n in range(6)}
    bare = model(ids).logits
    with pytest.raises(ZeroDivisionError), on(ForkMerge(2), model, {"input_ids": ids}):
        model(ids)
        made_inside = copy.deepcopy(model)
        raise ZeroDivisionError
    assert torch.equal(model(ids).logits, bare)
    assert torch.equal(made_inside(ids).logits, bare)
    assert not model.model._forward_pre_hooks
    assert not model.model._forward_hooks
    assert not model.model.layers[2]._forward_pre_hooks


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_each_prompt_what_it_gets_by_itself(side):
    model, rows = tiny_llama(), [*prompts(), spanned(14, (2, 3), ())]
    width = max(row.shape[1] for row in rows)
    ids, mask = torch.zeros(4, width, dtype=torch.long), torch.zeros(4, width, dtype=torch.long)
    for number, row in enumerate(rows):
        at = slice(width - row.shape[1], width) if side == "left" else slice(0, row.shape[1])
        ids[number, at], mask[number, at] = row[0], 1
    together = stepped(model, ids, ForkMerge(**FORK), attention_mask=mask)
    for number, row in enumerate(rows):
        alone = stepped(model, row, ForkMerge(**FORK))
        assert torch.allclose(together[0][number][mask[number].bool()], alone[0][0], atol=1e-4)
        if side == "left":
            for one, other in zip(together[1:], alone[1:], strict=True):
                assert torch.allclose(one[number], other[0], atol=1e-4)


def test_beams_have_the_scores_of_their_tokens_one_after_another():
    model, ids = tiny_llama(), spanned()
    method = ForkMerge(**FORK)
    with on(method, model, {"input_ids": ids}), torch.inference_mode():
        found = model.generate(
            ids, **SAYS, num_beams=3, num_return_sequences=3, length_penalty=0.0, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        for tokens, score in zip(found.sequences, found.sequences_scores, strict=True):
            out, total = model(ids, use_cache=True), 0.0
            for token in tokens[ids.shape[1] :]:
                total += float(out.logits[0, -1].log_softmax(dim=-1)[token])
                out = model(token.view(1, 1), past_key_values=out.past_key_values)
            assert float(score) == pytest.approx(total, abs=1e-3)
    assert len({tuple(one) for one in found.sequences.tolist()}) == 3


def test_outro_acts_in_both_branches_whichever_is_attached_first():
    model, ids = tiny_llama(), spanned(19, (3, 4, 5, 7), (8, 9, 11))
    outro, method = OutRo(gamma=1.0), ForkMerge(**FORK)
    with outro(model) as trace:
        outside = stepped(model, ids, method)
        assert trace.record.length == 19
        assert trace.sinks.positions(0) == [0]
    with on(method, model, {"input_ids": ids}), outro(model), torch.inference_mode():
        inside = model.generate(ids, **SAYS)
        assert torch.equal(model(ids).logits, outside[0])
    with outro(model), on(method, model, {"input_ids": ids}):
        assert torch.equal(model.generate(ids, **SAYS), inside)
    without = stepped(model, ids, method)
    with outro(model):
        rotated, at_first = by_default(model, ids), stepped(model, ids, ForkMerge(0))
    for one, other, plain, nothing in zip(outside, without, rotated, at_first, strict=True):
        assert not torch.allclose(one, other, atol=1e-3)
        assert not torch.allclose(one, plain, atol=1e-3)
        assert torch.equal(plain, nothing)


def test_it_forks_in_every_branch_of_a_contrastive_method():
    model, ids = tiny_llama(), spanned(19, (3, 4, 5, 7), (8, 9, 11))
    with on(SID(1.0, 0.0, rank=100), model, {"input_ids": ids}):  # Contrasts the model with itself.
        found = stepped(model, ids, ForkMerge(**FORK))
    for one, other in zip(found, stepped(model, ids, ForkMerge(**FORK)), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen2_5_omni_thinker", "qwen2_5_omni", "qwen3_omni_moe_thinker"])
def test_families_that_see_and_hear(name):
    model = reader(tiny(name, "sdpa"))
    inputs = FAMILIES[name].multimodal_inputs(model)
    towers = []
    (ears,) = (module for path, module in model.named_modules() if path.endswith("audio_tower"))
    hook = ears.register_forward_hook(lambda *_: towers.append(1))
    with torch.inference_mode():
        bare = model(**inputs).logits
        with ForkMerge()(model):  # At layer 1 of 5.
            merged = model(**inputs).logits
            assert len(towers) == 2
            answer = model.generate(**inputs, **SAYS)
        with ForkMerge(0)(model):
            assert torch.equal(model(**inputs).logits, bare)
    hook.remove()
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 4
    assert not torch.allclose(merged, bare, atol=1e-6)


def test_what_a_window_keeps_is_merged_by_its_own_tokens():
    model, ids = tiny_windowed(), spanned(19, (3, 4, 5, 16), (8, 9, 15))
    windowed, whole = (
        stepped(model, ids, ForkMerge(**FORK), cache) for cache in (DynamicCache(config=model.config), DynamicCache())
    )
    for one, other in zip(windowed, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(windowed[-1], stepped(model, ids, PlausibleTokens(beta=0.0))[-1], atol=1e-3)


class Packing(DynamicLayer):
    """Keeps keys and values in another form than its tensors, as quantised layers do."""

    def update(self, key_states, value_states, *args, **kwargs):
        key, value = super().update(key_states, value_states, *args, **kwargs)
        self.keys, self.values = key[:, :, :0], value[:, :, :0]
        return key, value


def test_a_cache_that_does_not_hold_keys_as_they_are_is_refused():
    model, ids = tiny_llama(), spanned()
    cache = DynamicCache()
    cache.layer_class_to_replicate = Packing
    with pytest.raises(UnsupportedModelError, match="at layer 0: its Packing does not hold them"):
        stepped(model, ids, ForkMerge(**FORK), cache)


def test_a_compiled_model_forks_beside_its_graph():
    model, ids = tiny_llama(), spanned()
    with on(ForkMerge(**FORK), model, {"input_ids": ids}), torch.inference_mode():
        expected = model(ids).logits
        found = torch.compile(model, backend="eager")(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_cannot_fork_is_refused():
    model = reader(tiny("qwen2_5_vl", "sdpa"))
    with pytest.raises(UnsupportedModelError, match="ForkMerge acts on audio tokens"), ForkMerge()(model):
        model(**FAMILIES["qwen2_5_vl"].multimodal_inputs(model))
    with (
        pytest.raises(OmnisinkError, match="merges at layer 6, but the model has layers 0 to 5"),
        ForkMerge(6)(tiny_llama()),
    ):
        pass
    for given in ({"fork_layer": -1}, {"fork_layer": True}, {"video_weight": 1.5}):
        with pytest.raises(ValueError, match=next(iter(given))):
            ForkMerge(**given)
    assert parse_method("fork-merge:fork_layer=4:video_weight=0.8") == ForkMerge(4, 0.8)
    assert ForkMerge().fork_layer is None
