"""SID against a restatement in float64, and its identities: what the branch shares, hides and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from transformers import DynamicCache

from omnisink import OmnisinkError, OutRo, UnsupportedModelError
from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.replay import share
from omnisink.methods.registry import parse_method
from omnisink.methods.sid import SID, num_seen
from omnisink.verification.families import FAMILIES
from tests.methods.reference_branches import PlainLlama, PlainSid
from tests.methods.weight_cases import on, places, prompts, spanned, tiny_windowed
from tests.reference_outro import FLEX_WARNING, prompt, tiny_llama
from tests.verification.family_cells import reader, tiny

pytestmark = [FLEX_WARNING, pytest.mark.usefixtures("flex_attention_uncompiled")]

STEPS = 4
SEES = ("qwen2_5_vl", "qwen3_vl", "qwen2_5_omni_thinker", "llava", "gemma3_vision", "internvl")
STATIC = {"cache_implementation": "static", "disable_compile": True}


@dataclass(frozen=True)
class Watched(SID):
    """Notes the logits of both."""

    seen: list = field(default_factory=list, compare=False)

    def combine(self, first, twins):
        self.seen.append((first[:, -1].clone(), twins[0][:, -1].clone()))
        return super().combine(first, twins)


def generated(model, ids, method, spans_of=None, **options):
    settings = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "suppress_tokens": [3, 4]}
    with on(method, model, {"input_ids": ids if spans_of is None else spans_of}) as trace:
        return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings | options), trace


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("sdpa", {}),
        ("sdpa", STATIC),
        ("eager", STATIC),
        ("flex_attention", {"max_new_tokens": 1, "min_new_tokens": 1}),
    ],
    ids=str,
)
def test_every_pass_hides_all_but_the_least_attended_images(backend, options):
    model, ids = tiny_llama(backend), spanned(19, (3, 4, 5, 6, 7, 11), (8, 9))
    method = Watched(alpha=3.0, beta=0.0, rank=2)
    made, _ = generated(model, ids, method, **options)
    plain = PlainSid(PlainLlama(model), places(ids)["images"], rank=2)
    with torch.inference_mode():
        for number, (first, twin) in enumerate(method.seen):
            entering = ids if number == 0 else made[:, ids.shape[1] + number - 1][None]
            assert torch.allclose(twin[0].double(), plain.read(entering)[-1], atol=1e-4)
            assert not torch.allclose(twin, first, atol=1e-3)
    assert len(method.seen) == options.get("max_new_tokens", STEPS)
    assert len(set(plain.hidden)) > 1 or len(method.seen) == 1  # Each pass ranks anew.
    assert all(len(gone) == 4 for gone in plain.hidden)


@pytest.mark.parametrize("settings", [{"layer": 3}, {"modalities": ("audio",), "rank": 1}, {"rank": 0.3}], ids=str)
def test_layer_modality_and_share_are_settings(settings):
    model, ids = tiny_llama(), spanned(19, (3, 4, 5, 6, 7, 11), (8, 9))
    method = Watched(**{"rank": 2, **settings})
    generated(model, ids, method)
    offered = places(ids)["audio" if "modalities" in settings else "images"]
    plain = PlainSid(PlainLlama(model), offered, 1 if "modalities" in settings else 2, settings.get("layer", 2))
    with torch.inference_mode():
        assert torch.allclose(method.seen[0][1][0].double(), plain.read(ids)[-1], atol=1e-4)


@pytest.mark.parametrize("rank", [6, 100])
def test_where_all_images_are_seen_the_branch_is_the_models_own_pass(rank):
    model, ids = tiny_llama(), spanned(19, (3, 4, 5, 6, 7, 11), (8, 9))
    method = Watched(rank=rank)
    _, trace = generated(model, ids, method)
    for first, twin in method.seen:
        assert torch.equal(first, twin)
    assert "no prompt has more" in trace.skipped_layers[2]
    less = Watched(rank=5)
    _, trace = generated(model, ids, less)
    assert not torch.equal(*less.seen[0])
    assert not trace.skipped_layers


def test_the_layers_before_are_the_models_to_the_bit():
    model, ids = tiny_llama(), spanned()
    left = {number: [] for number in range(6)}
    hooks = [
        layer.register_forward_hook(lambda m, a, output, number=number: left[number].append(output.clone()))
        for number, layer in enumerate(model.model.layers)
    ]
    generated(model, ids, SID(rank=1))
    for hook in hooks:
        hook.remove()
    for number, outputs in left.items():
        assert len(outputs) == 2 * STEPS
        for own, twin in zip(outputs[::2], outputs[1::2], strict=True):
            assert torch.equal(own, twin) == (number < 2)


def test_what_comes_before_the_ranking_is_run_once_where_runs_are_shared():
    model, ids = tiny_llama(), spanned()
    calls = dict.fromkeys(range(6), 0)

    def count(module, args, number):
        calls[number] += 1

    for number, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_pre_hook(lambda m, a, number=number: count(m, a, number))
    expected, _ = generated(model, ids, SID(rank=1))
    alone = dict(calls)
    with share(read_anatomy(model)):
        assert torch.equal(generated(model, ids, SID(rank=1))[0], expected)
    shared = {number: calls[number] - alone[number] for number in calls}
    assert alone == shared == {0: 2 * STEPS - 1, **dict.fromkeys(range(1, 6), 2 * STEPS)}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_each_prompt_what_it_gets_by_itself(side):
    model, rows = tiny_llama(), prompts()
    width = max(row.shape[1] for row in rows)
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for number, row in enumerate(rows):
        at = slice(width - row.shape[1], width) if side == "left" else slice(0, row.shape[1])
        ids[number, at], mask[number, at] = row[0], 1
    method = SID(alpha=2.0, beta=0.0, rank=1)
    inputs = {"input_ids": ids, "attention_mask": mask}
    with on(method, model, inputs), torch.inference_mode():
        together = model(**inputs).logits
    for number, row in enumerate(rows):
        with on(method, model, {"input_ids": row}), torch.inference_mode():
            assert torch.allclose(together[number][mask[number].bool()], model(row).logits[0], atol=1e-4)
    if side == "left":
        with on(method, model, inputs):
            made = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[:, width:]
        for number, row in enumerate(rows):
            with on(method, model, {"input_ids": row}):
                alone = model.generate(row, max_new_tokens=STEPS, do_sample=False)
            assert made[number].tolist() == alone[0, row.shape[1] :].tolist()


def test_beams_have_the_scores_of_their_tokens_one_after_another():
    model, ids = tiny_llama(), spanned()
    method = SID(alpha=2.0, beta=0.0, rank=1)
    found, _ = generated(
        model, ids, method, num_beams=4, num_return_sequences=3, length_penalty=0.0, output_scores=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert len({tuple(one) for one in found.sequences.tolist()}) == 3
    for tokens, score in zip(found.sequences, found.sequences_scores, strict=True):
        with on(method, model, {"input_ids": ids}), torch.inference_mode():
            out, total = model(ids, use_cache=True), 0.0
            for token in tokens[ids.shape[1] :]:
                total += float(out.logits[0, -1].log_softmax(dim=-1)[token])
                out = model(token.view(1, 1), past_key_values=out.past_key_values)
        assert float(score) == pytest.approx(total, abs=1e-3)


def test_a_cache_with_a_window_hides_the_same_tokens():
    model, ids = tiny_windowed(), spanned(19, (3, 4, 5, 6, 13, 14, 16), (8, 9))
    found = []
    for cache, rank in ((DynamicCache(config=model.config), 1), (DynamicCache(), 1), (DynamicCache(), 100)):
        method = SID(alpha=2.0, beta=0.0, rank=rank)
        with on(method, model, {"input_ids": ids}), torch.inference_mode():
            out = model(ids, past_key_values=cache)
            steps = [model(torch.tensor([[token]]), past_key_values=cache).logits[:, -1] for token in (20, 31, 9)]
            found.append(torch.stack([out.logits[:, -1], *steps]))
    windowed, whole, own = found
    assert torch.allclose(windowed, whole, atol=1e-4)
    for one, other in zip(windowed, own, strict=True):
        assert not torch.allclose(one, other, atol=1e-2)


def test_outro_acts_in_both_whichever_is_attached_first():
    model, ids = tiny_llama(), spanned(19, (3, 4, 5, 6, 7, 11), (8, 9))
    plain, outro, method = SID(2.0, 0.0, rank=2), OutRo(gamma=1.0), Watched(2.0, 0.0, rank=2)
    with outro(model):
        one, _ = generated(model, ids, method)
    with on(plain, model, {"input_ids": ids}), outro(model):
        other = model.generate(ids, max_new_tokens=STEPS, do_sample=False, suppress_tokens=[3, 4])
        expected = model(ids).logits[:, -1]
    with outro(model), torch.inference_mode():
        own = model(ids).logits[:, -1]
    assert one.tolist() == other.tolist()
    first, twin = method.seen[0]
    assert torch.allclose(first, own, atol=1e-5)
    assert torch.allclose(3 * first - 2 * twin, expected, atol=1e-4)
    assert not torch.allclose(first, twin, atol=1e-3)


@pytest.mark.parametrize("name", SEES)
def test_families_that_see(name):
    model = reader(tiny(name, "sdpa"))
    inputs = FAMILIES[name].multimodal_inputs(model)
    options = {"max_new_tokens": 3, "do_sample": False, "suppress_tokens": list(range(1, 20))}
    same, less = Watched(rank=1000), Watched(alpha=1.5, beta=0.0, rank=1)
    with same(model):
        model.generate(**inputs, **options)
    assert len(same.seen) == 3
    assert all(torch.equal(*both) for both in same.seen)
    with less(model):
        model.generate(**inputs, **options)
    assert all(not torch.allclose(*both, atol=1e-6) for both in less.seen)


def test_text_is_refused():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    with pytest.raises(UnsupportedModelError, match="SID acts on image or video tokens"), SID()(model):
        model(ids)
    with pytest.raises(OmnisinkError, match="image or video tokens, and a prompt has none"):
        generated(model, ids, SID())
    two = torch.cat([spanned(13, (3, 4), (6,)), ids])
    with pytest.raises(OmnisinkError, match="a prompt has none"):
        generated(model, two, SID())


def test_settings_are_checked_and_named():
    for given in (
        {"rank": 0},
        {"rank": 1.5},
        {"rank": True},
        {"layer": 0},
        {"modalities": ()},
        {"modalities": ("text",)},
    ):
        with pytest.raises(ValueError, match=next(iter(given))):
            SID(**given)
    with pytest.raises(OmnisinkError, match="layers 0 to 5"), SID(layer=6)(tiny_llama()):
        pass
    assert parse_method("sid:sampler:greedy:chair") == SID(alpha=0.5, beta=0.0, rank=50)
    assert parse_method("sid:rank=0.25:modalities=audio") == SID(rank=0.25, modalities=("audio",))
    assert parse_method("sid:pope") == SID(rank=100)
    assert num_seen(torch.ones(1, 576, dtype=torch.bool), SID().rank).tolist() == [100]
