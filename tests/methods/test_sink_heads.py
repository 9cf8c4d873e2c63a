"""Heads ranked by their attention to the first token, and removed."""

from __future__ import annotations

import pytest
import torch

from omnisink.errors import OmnisinkError
from omnisink.methods import HeadRanking, PruneSinkHeads, ZeroHeads, rank_heads
from tests.methods.reference_edits import PlainEdit, generated, padded, plain_run, run
from tests.reference_outro import prompt, tiny_llama

TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)


def scores_by_maps(model, ids):
    """S of every head from the whole attention maps, in float64."""
    plain = PlainEdit(model)
    plain_run(plain, ids)
    return {layer: weights[:, :, 0].mean(dim=1) for layer, weights in plain.weights.items()}


@pytest.fixture
def ranking(tmp_path):
    found = rank_heads(tiny_llama(), [{"input_ids": prompt(13)}, {"input_ids": prompt(9, (), 3)}])
    found.save(tmp_path / "heads.json")
    return found, str(tmp_path / "heads.json")


def test_the_scores_are_the_mean_of_the_maps_whose_first_row_is_one():
    model, texts = tiny_llama(), [prompt(13), prompt(9, (), 3)]
    found = rank_heads(model, [{"input_ids": ids} for ids in texts])
    expected = [scores_by_maps(model, ids) for ids in texts]
    assert found.texts == 2
    for layer, row in found.scores.items():
        mean = (expected[0][layer] + expected[1][layer]) / 2
        assert (torch.tensor(row, dtype=torch.float64) - mean).abs().max() < TOLERANCE
        assert all(1 / 13 <= score <= 1 for score in row)
    for side in ("left", "right"):
        together = rank_heads(model, [padded(texts, side)])
        assert all(together.scores[layer] == pytest.approx(row, abs=TOLERANCE) for layer, row in found.scores.items())
    assert found.layer_scores()[3] == pytest.approx(sum(found.scores[3]) / 4)


def test_attention_that_is_uniform_has_the_closed_form():
    model = tiny_llama()
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
    found = rank_heads(model, [{"input_ids": prompt(17)}])
    harmonic = sum(1 / t for t in range(1, 18)) / 17
    assert all(score == pytest.approx(harmonic, abs=1e-6) for row in found.scores.values() for score in row)


def test_a_ratio_takes_the_highest_of_all_heads_or_of_each_layer():
    found = HeadRanking({0: (0.9, 0.9, 0.9, 0.9), 1: (0.1, 0.8, 0.2, 0.3), 2: (0.7, 0.4, 0.5, 0.6)}, 1)
    assert found.heads(0.25, exclude_layers=(0,)) == ((1, 1), (2, 0))
    assert found.heads(0.5, exclude_layers=(0,)) == ((1, 1), (2, 0), (2, 2), (2, 3))
    assert found.heads(0.5, "layer", exclude_layers=(0,)) == ((1, 1), (1, 3), (2, 0), (2, 3))
    assert found.heads(0.5, exclude_layers=(0,), group=2) == ((2, 0), (2, 1), (2, 2), (2, 3))
    assert found.heads(0.5, "layer", exclude_layers=(0,), group=2) == ((1, 0), (1, 1), (2, 0), (2, 1))
    assert found.heads(0.0) == ()
    assert len(found.heads(1.0)) == 12


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("per", ["model", "layer"])
def test_removing_ranked_heads_is_zeroing_them(ranking, group, per):
    model, ids = tiny_llama(), prompt(11, (0, 4))
    found, path = ranking
    heads = found.heads(0.3, per, (0, 1), 2 if group else 1)
    assert heads
    with ZeroHeads(heads)(model):
        expected = run(model, ids, CONTINUATION)
    for cache in ("dynamic", "static"):
        with PruneSinkHeads(0.3, path, per, group=group)(model):
            assert (run(model, ids, CONTINUATION, cache) - expected).abs().max() < TOLERANCE
    assert (run(model, ids, CONTINUATION) - expected).abs().max() > 20 * TOLERANCE


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("fill", ["zero", "value"])
def test_a_prompt_ranks_for_itself_as_its_maps_say(backend, fill):
    class Plain(PlainEdit):
        def _attend(self, query, number, start, is_prefill, *rest):
            output = super()._attend(query, number, start, is_prefill, *rest)
            if is_prefill and number > 1:
                score = self.weights[number][:, :, 0].mean(dim=1)
                self.bias[number] = score.argsort(descending=True)[:2].tolist()
            for head in self.bias.get(number, []):
                output[:, head] = 0 if fill == "zero" else self.values[number][head // 2, 0]
            return output

    model, ids = tiny_llama(backend), prompt(13)
    expected = plain_run(Plain(model), ids, CONTINUATION)
    for cache in ("dynamic", "static"):
        with PruneSinkHeads(0.5, fill=fill)(model):
            found = run(model, ids, CONTINUATION, cache)
        assert (found.double() - expected).abs().max() < TOLERANCE


WAYS = [{}, {"fill": "value"}, {"group": True}, {"group": True, "fill": "value"}]


@pytest.mark.parametrize("settings", WAYS, ids=str)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(settings, cache):
    model, method = tiny_llama(), PruneSinkHeads(0.5, **settings)
    options = {"cache_implementation": "static"} if cache == "static" else {}
    rows = [prompt(13, (0, 6)), prompt(8), prompt(3, (), seed=4)]
    with method(model):
        together, tokens = generated(model, padded(rows), **options)
        alone = [generated(model, padded([row]), **options) for row in rows]
    for b, (one, same_tokens) in enumerate(alone):
        assert (together[b] - one[0]).abs().max() < TOLERANCE
        assert tokens[b].tolist() == same_tokens[0].tolist()
    assert (together[0] - generated(model, padded(rows))[0][0]).abs().max() > TOLERANCE


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_a_right_padded_prompt_is_what_it_is_without_padding(settings):
    model, row = tiny_llama(), prompt(9, (0, 4))
    inputs = {k: v[:1] for k, v in padded([row, prompt(12)], "right").items()}
    with torch.inference_mode(), PruneSinkHeads(0.5, **settings)(model):
        found = model(**inputs).logits[:, :9]
        assert (found - model(input_ids=row).logits).abs().max() < TOLERANCE


def test_beams_keep_the_heads_of_their_prompt():
    model = tiny_llama()
    rows = [prompt(13, (0, 6)), prompt(4)]
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "length_penalty": 0.0}
    with PruneSinkHeads(0.5, fill="value")(model):
        both = model.generate(**padded(rows), **options)
        for b, row in enumerate(rows):
            one = model.generate(**padded([row]), **options)
            assert both[b, -6:].tolist() == one[0, -6:].tolist()


def test_a_ratio_of_zero_changes_no_bit(ranking):
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    bare, _ = generated(model, inputs)
    for method in (
        PruneSinkHeads(0.0),
        PruneSinkHeads(0.0, ranking[1]),
        PruneSinkHeads(exclude_layers=tuple(range(6))),
    ):
        with method(model):
            assert torch.equal(generated(model, inputs)[0], bare)


def test_a_head_that_sees_the_first_token_only_is_left_by_its_value():
    model, ids = tiny_llama(), prompt(1)
    bare = run(model, ids)
    with PruneSinkHeads(1.0, exclude_layers=(), fill="value")(model):
        assert (run(model, ids) - bare).abs().max() < TOLERANCE


def test_a_ranking_survives_its_file_and_is_refused_for_another_model(ranking, tmp_path):
    found, path = ranking
    assert HeadRanking.load(path) == found
    for other in (tiny_llama(num_hidden_layers=4), tiny_llama(num_attention_heads=2, head_dim=12)):
        with (
            pytest.raises(OmnisinkError, match="ranks the heads of another model"),
            PruneSinkHeads(ranking=path)(other),
        ):
            pass
    (tmp_path / "other.json").write_text('{"format": "something"}')
    for wrong in ("other.json", "missing.json"):
        with pytest.raises(OmnisinkError, match="is not a ranking of heads"):
            HeadRanking.load(tmp_path / wrong)


def test_a_ranking_needs_texts_of_two_tokens():
    with pytest.raises(OmnisinkError, match="without a text"):
        rank_heads(tiny_llama(), [])
    with pytest.raises(OmnisinkError, match="text of one token"):
        rank_heads(tiny_llama(), [{"input_ids": prompt(1)}])


@pytest.mark.parametrize("settings", [{"ratio": 1.5}, {"ratio": float("nan")}, {"per": "head"}, {"fill": "mean"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PruneSinkHeads(**settings)
