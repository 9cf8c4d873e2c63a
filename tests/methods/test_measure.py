"""What the recorder measures, against whole attention maps."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from omnisink.errors import OmnisinkError
from omnisink.maths import decomposition
from omnisink.methods.criteria import MassiveActivation, Positions, SinkDimension
from omnisink.methods.measure import Recorder, record
from tests.methods.reference_edits import PlainEdit, padded, plain_run
from tests.reference_outro import prompt, tiny_llama

TEXT = Path(__file__).with_name("lighthouse.txt").read_text(encoding="utf-8").strip()


def plain_measurements(weights, query, key, value, output, sinks, sets):
    """Everything of one layer and prompt by its definition, from maps (H, S, S), float64."""
    heads, length = weights.shape[:2]
    key, value = (x.repeat_interleave(heads // len(x), dim=0) for x in (key, value))
    rest = [t for t in range(length) if t not in sinks]
    from_sinks = weights[:, :, sinks] @ value[:, sinks]
    mean_key, other_key = (key[:, which].mean(dim=1) for which in (sinks, rest))
    received = torch.stack([weights[:, t:, t].mean(dim=1) for t in range(length)], dim=1)

    def pairwise(part):
        pairs = itertools.combinations(rest, 2)
        return torch.stack([cosine_similarity(part[:, s], part[:, t], dim=-1) for s, t in pairs]).mean(dim=0)

    def looks(t):
        scores = (key @ query[:, t, :, None])[..., 0] / query.shape[-1] ** 0.5
        return scores.softmax(dim=-1).mean(dim=0)

    groups = heads // 2 if len(key) == heads else 1
    return {
        "mass": torch.stack([weights[:, rest][:, :, s].sum(-1).mean(-1) for s in sets], dim=-1),
        "mass_by_token": torch.stack([weights[:, :, s].sum(-1).mean(0) for s in sets]),
        "received": received.mean(dim=0),
        "received_most": received.amax(dim=1),
        "sink_share": ((from_sinks * output).sum(-1) / output.square().sum(-1))[:, rest].mean(-1),
        "sink_norm_ratio": (from_sinks.norm(dim=-1) / output.norm(dim=-1))[:, rest].mean(-1),
        "parallel": torch.stack([pairwise(part) for part in (output, from_sinks, output - from_sinks)]),
        "query_cosine": cosine_similarity(query, mean_key[:, None], dim=-1)[:, rest].mean(-1),
        "other_cosine": cosine_similarity(query, other_key[:, None], dim=-1)[:, rest].mean(-1),
        "sink_query": looks(sinks[0]),
        "last_query": looks(length - 1),
        "repeated": (groups, mean_key, value[:, sinks].mean(dim=1), key.norm(dim=-1), value.norm(dim=-1)),
    }


def check(found, b, i, expected, tolerance):
    """Compare one prompt and layer of a recording with the plain measurements, names and all."""
    expected = dict(expected)
    _, mean_key, mean_value, key_norm, value_norm = expected.pop("repeated")
    kv_heads = found["sink_key"].shape[2]
    each = len(mean_key) // kv_heads
    expected["sink_key"], expected["sink_value"] = mean_key[::each], mean_value[::each]
    expected["key_norm"], expected["value_norm"] = key_norm[::each], value_norm[::each]
    token_mask = torch.from_numpy(found.token_mask[b])
    for name, plain in expected.items():
        mine = torch.from_numpy(found[name][b, i]).double()
        mine = mine[..., token_mask] if found.dims(name)[-1] == "token" else mine
        size = max(1.0, float(plain.abs().max()))
        assert (mine - plain).abs().max() < tolerance * size, name
    where = found["received_where"][b, i] - int(token_mask.nonzero()[0])
    assert (torch.from_numpy(where) >= 0).all()
    assert found["split_error"][b, i] < 1e-5


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("block", [1, 1 << 21])
def test_every_measurement_equals_its_definition_for_each_prompt_of_a_batch(backend, side, block, monkeypatch):
    monkeypatch.setattr(decomposition, "_BLOCK", {"cpu": block})
    model, rows = tiny_llama(backend), [prompt(13, (0, 6)), prompt(8)]
    inputs = padded(rows, side)
    token_mask = inputs["attention_mask"].bool()
    place = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    odd = token_mask & (place % 2 == 1)
    others = (Positions((0, 2)),)
    found = record(model, others=others, sets={"odd": odd}, position_ids=place, **inputs)
    assert found.layers == list(range(6))
    assert found.sets == ["massive_activation", "positions", "odd"]
    assert (found.token_mask == token_mask.numpy()).all()
    for b, row in enumerate(rows):
        plain = PlainEdit(model)
        plain_run(plain, row)
        length = row.shape[1]
        for layer in range(4):
            sinks = plain.sinks[layer]
            sets = [sinks, [0, 2], list(range(1, length, 2))]
            expected = plain_measurements(
                plain.weights[layer], plain.queries[layer], plain.keys[layer], plain.values[layer],
                plain.outputs[layer], sinks, sets,
            )  # fmt: skip
            check(found, b, layer, expected, 1e-5)
            assert found.sinks().positions(layer, b) == [int(token_mask[b].nonzero()[0]) + t for t in sinks]


@pytest.mark.real
def test_measurements_on_trained_weights_equal_those_from_the_models_own_maps(smollm2):
    model = smollm2.model
    ids = smollm2.tokenizer(TEXT, return_tensors="pt").input_ids[:, :48]
    was, outputs = model.config._attn_implementation, {}
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args, i=i: outputs.update({i: args[0][0]}))
        for i, layer in enumerate(model.model.layers)
    ]
    try:
        model.set_attn_implementation("eager")
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            maps = model(input_ids=ids, past_key_values=cache, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(was)
        for hook in hooks:
            hook.remove()
    found = record(model, sets={"late": torch.arange(48)[None] >= 30}, input_ids=ids)
    for layer in (13, 20, 27):
        weights = maps[layer][0].double()
        key, value = cache.layers[layer].keys[0].double(), cache.layers[layer].values[0].double()
        output = outputs[layer].unflatten(-1, (9, 64)).transpose(0, 1).double()
        sinks = found.sinks().positions(layer)
        assert sinks == [0]
        expected = plain_measurements(weights, output, key, value, output, sinks, [sinks, list(range(30, 48))])
        # Queries are not to be had from outside; what needs them is compared on the tiny model.
        for name in ("query_cosine", "other_cosine", "sink_query", "last_query"):
            del expected[name]
        check(found, 0, layer, expected, 2e-5)
    assert found.mass_on("massive_activation")[0, 20].mean() > 0.3  # its heads do look at their sink
    assert (found["received_most"][0, 20] > 0.3).sum() >= 4
    assert set(found["received_where"][0, 20][found["received_most"][0, 20] > 0.3]) == {0}


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_nothing_is_changed_by_a_bit(backend):
    model, inputs = tiny_llama(backend), padded([prompt(13, (0, 6)), prompt(8)])
    with torch.inference_mode():
        bare = model(**inputs).logits
        with Recorder()(model) as trace:
            found = model(**inputs).logits
            generated = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(found, bare)
    assert torch.equal(generated, model.generate(**inputs, max_new_tokens=3, do_sample=False))
    assert trace.record.measured["mass"][0].shape == (2, 4, 1)


def test_without_a_sink_what_speaks_of_one_is_nan_and_the_rest_is_not():
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8, ())])
    found = record(model, **inputs)
    about_sinks = {"sink_share", "sink_norm_ratio", "parallel", "sink_key", "sink_value", "query_cosine"}
    about_sinks |= {"other_cosine", "sink_query"}
    for name, array in found.arrays.items():
        values = torch.from_numpy(array)
        assert not values[0, :4].double().isnan().any(), name
        assert values[1, :4].double().isnan().all() == (name in about_sinks), name
    assert (found["mass"][1, :4] == 0).all()
    assert (found["split_error"][:, :4] < 1e-5).all()


def test_layers_and_received_attention_are_left_out_where_asked():
    model, ids = tiny_llama(), prompt(9)
    found = record(model, layers=(1, 4), received=False, input_ids=ids)
    assert found.layers == [1, 4]
    assert not {"received", "received_most", "received_where"} & set(found.arrays)
    with pytest.raises(OmnisinkError, match="'received' was not recorded; there are .*mass"):
        found["received"]
    assert (found["mass"][:, 0] == record(model, input_ids=ids)["mass"][:, 1]).all()


def test_criteria_with_sets_of_their_own_are_told_apart():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    found = record(
        model, criterion=Positions((0,)), others=(MassiveActivation(), SinkDimension((5,), 1.0)), input_ids=ids
    )
    assert [c["name"] for c in found.criteria] == ["positions", "massive_activation", "sink_dimension"]
    assert found.sinks(0).positions(0) == [0]
    assert found.sinks(1).positions(0) == [0, 6]
    assert set(found.sinks(2).positions(0)) >= {0, 6}
    assert (found.mass_on("massive_activation") > found.mass_on("positions")).all()
    assert found["channel_peak"][0, 0].argmax() == 5


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"a": torch.ones(1, 8, dtype=torch.bool)}, r"set 'a'.*\(1, 9\).*\(1, 8\)"),
        ({"b": torch.ones(1, 9)}, r"set 'b'.*bool.*float32"),
    ],
)
def test_sets_that_do_not_fit_are_refused(sets, message):
    with pytest.raises(OmnisinkError, match=message):
        record(tiny_llama(), sets=sets, input_ids=prompt(9))


def test_layers_that_the_model_does_not_have_are_refused():
    with pytest.raises(OmnisinkError, match=r"\[6\].*0 to 5"):
        record(tiny_llama(), layers=(6,), input_ids=prompt(9))


def test_half_precision_measures_what_the_model_did():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    wide = record(model, input_ids=ids)
    half = record(model.to(torch.bfloat16), input_ids=ids)
    assert {str(a.dtype) for a in half.arrays.values()} == {"float32", "bool", "int64"}
    assert half["split_error"].max() < 4 * 2**-8
    assert abs(half["mass"] - wide["mass"]).max() < 0.02


class Largest(TorchDispatchMode):
    """Remember the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_nothing_of_size_s_by_s_is_made(monkeypatch):
    monkeypatch.setattr(decomposition, "_BLOCK", {"cpu": 1 << 16})
    length = 1500
    model = tiny_llama(max_position_embeddings=length, num_hidden_layers=3)
    with Largest() as largest:
        found = record(model, others=(Positions((0, 1)),), layers=(0,), input_ids=prompt(length))
    assert found["mass"].shape == (1, 1, 4, 2)
    assert 0 < largest.elements < length * length / 4
