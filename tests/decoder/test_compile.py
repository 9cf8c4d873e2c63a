"""torch.compile: one graph, the same answers, and no compiled code that outlives its block."""

from __future__ import annotations

import pytest
import torch
from transformers import StaticCache

from omnisink import OmnisinkError, OutRo, find_sinks
from omnisink.methods.criteria import Positions, SinkDimension
from omnisink.methods.measure import record
from omnisink.methods.sink_router import SinkRouter
from tests.decoder.outside_llamas import Composite
from tests.reference_outro import prompt, tiny_llama

#: Traces and guards as for any compiler, and runs the graph as it is: what is tested here is the tracing.
BACKEND = "aot_eager"


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def passes(forward, model, ids):
    cache = StaticCache(config=model.config, max_cache_len=32)
    token = torch.tensor([[20]]).expand(len(ids), 1)
    with torch.inference_mode():
        return [
            forward(input_ids=ids, past_key_values=cache).logits,
            *[forward(input_ids=token, past_key_values=cache).logits for _ in range(3)],
        ]


def same(found, expected):
    return all((a - b).abs().max() < 1e-5 for a, b in zip(found, expected, strict=True))


SETTINGS = [
    {},
    {"rotate": False},
    {"gamma": -0.5, "decode": False},
    {"criterion": SinkDimension((3, 5, 20), 2.0)},
    {"criterion": Positions((0, 6))},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_one_graph_and_the_same_answers(settings):
    model = tiny_llama(num_hidden_layers=3)
    ids = torch.cat([prompt(13, (0, 6)), prompt(13, ())])
    with OutRo(**settings)(model) as trace:
        expected = passes(model, model, ids)
        seen = trace.sinks.to_json(), trace.relaxed, trace.rotated_tokens
    with OutRo(**settings)(model) as trace:
        compiled = torch.compile(model.forward, backend=BACKEND, fullgraph=True)
        assert same(passes(compiled, model, ids), expected)
    assert (trace.sinks.to_json(), trace.relaxed, trace.rotated_tokens) == seen


ROUTERS = [
    {"threshold": 0.02},
    {"threshold": ((8, -0.2), (12, 0.1), (16, -0.1)), "surrogate": "value"},
    {"threshold": ((8, -0.2), (12, 0.1), (16, -0.1), (20, 0.0)), "fit": "cubic", "anchor": "sinks"},
    {"threshold": 1},
]


@pytest.mark.filterwarnings("ignore::omnisink.methods.router_trace.SurrogateWarning")
@pytest.mark.parametrize(
    ("backend", "settings"), [*(("sdpa", settings) for settings in ROUTERS), ("eager", ROUTERS[0])], ids=str
)
def test_routed_steps_are_one_graph_with_the_same_answers(settings, backend):
    model = tiny_llama(backend, num_hidden_layers=4)
    ids = torch.cat([prompt(13, (0, 6)), prompt(13, ())])
    with SinkRouter(**settings)(model) as trace:
        expected = passes(model, model, ids)
        assert (trace.skip_ratio > 0) == (settings["threshold"] != 1)
    with SinkRouter(**settings)(model) as trace:
        compiled = torch.compile(model.forward, backend=BACKEND, fullgraph=True)
        assert same(passes(compiled, model, ids), expected)
        with pytest.raises(OmnisinkError, match="what was routed is not known"):
            _ = trace.skip_ratio


def test_compiled_code_does_not_outlive_its_block():
    model = tiny_llama(num_hidden_layers=3)
    ids = prompt(13, (0, 6))
    plain = passes(model, model, ids)
    with OutRo()(model):
        rotated = passes(model, model, ids)
    assert not same(rotated, plain)
    compiled = torch.compile(model.forward, backend=BACKEND)
    assert same(passes(compiled, model, ids), plain)
    for _ in range(2):
        with OutRo()(model):
            assert same(passes(compiled, model, ids), rotated)
        assert same(passes(compiled, model, ids), plain)


def test_a_compiled_model_can_be_attached_to():
    model = tiny_llama(num_hidden_layers=3)
    ids = prompt(13, (0, 6))
    with OutRo()(model):
        expected = passes(model, model, ids)
    with OutRo()(torch.compile(model, backend=BACKEND)) as trace:
        assert same(passes(model, model, ids), expected)
    assert trace.sinks.positions(0) == [0, 6]


def test_what_only_the_device_knows_is_reported_when_the_block_ends():
    model = tiny_llama(num_hidden_layers=3)
    ids = prompt(13, (0, 6, 9))
    with pytest.raises(OmnisinkError, match="max_relaxed"), OutRo(max_relaxed=2)(model):
        passes(torch.compile(model.forward, backend=BACKEND, fullgraph=True), model, ids)
    cache = StaticCache(config=model.config, max_cache_len=32)
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=cache)
    with pytest.raises(OmnisinkError, match="already holds"), OutRo()(model), torch.inference_mode():
        compiled = torch.compile(model.forward, backend=BACKEND, fullgraph=True)
        compiled(input_ids=prompt(4, ()), past_key_values=cache)


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: Composite(llm=model)], ids=["plain", "composite"])
def test_sinks_of_a_compiled_model_are_found(wrap):
    model, ids = wrap(tiny_llama(num_hidden_layers=3)), prompt(13, (0, 6))
    compiled = torch.compile(model, backend="eager")
    found = find_sinks(compiled, input_ids=ids)
    assert found.to_json() == find_sinks(model, input_ids=ids).to_json()
    expected = record(model, input_ids=ids)["mass"]
    assert abs(record(compiled, input_ids=ids)["mass"] - expected).max() < 1e-5


def test_what_is_not_finite_is_told_of_compiled_code_at_the_end():
    model, ids = tiny_llama(num_hidden_layers=3), prompt(13, (0, 6))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 3] = float("nan")
    with pytest.raises(OmnisinkError, match="NaN or inf leaves the last layer"), OutRo()(model):
        passes(torch.compile(model.forward, backend=BACKEND), model, ids)
