"""SinkRouter in every family, and on the path that an accelerator takes."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import UnsupportedModelError
from omnisink.maths import routing, sinks
from omnisink.methods import SinkRouter, base, router_keys
from omnisink.verification.families import FAMILIES
from tests.decoder.test_no_waiting import NoReads
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import LENGTHS, MARKS, alone, in_turn, reader, same, tiny

pytestmark = pytest.mark.filterwarnings("ignore::omnisink.methods.router_trace.SurrogateWarning")
CURVE = ((8, -0.2), (12, 0.1), (16, -0.1))


def logits(model, inputs, steps=3):
    made = reader(model).generate(
        **inputs, min_new_tokens=steps, max_new_tokens=steps, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return torch.stack(made.logits, dim=1), made.sequences[:, -steps:]


def as_families_are_run(test):
    for mark in MARKS:
        test = mark(test)
    return test


@as_families_are_run
@pytest.mark.parametrize(("name", "backend"), in_turn())
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name, backend):
    model = tiny(name, backend)
    inputs = FAMILIES[name].inputs(model, lengths=LENGTHS)
    method = SinkRouter(0.0, "value", skip_layers=(0,))
    bare, _ = logits(model, inputs)
    try:
        with method(reader(model)) as trace:
            together, tokens = logits(model, inputs)
    except UnsupportedModelError as error:
        said = str(error)
    else:
        said = ""
    assert (REFUSED[name] in said) if name in REFUSED else not said
    if said:
        return
    assert torch.equal(together[:, 0], bare[:, 0])  # the prompt's logits
    assert trace.skip_ratio > 0
    assert set(trace.scores) == set(trace.record.groups) - {0, *trace.skipped_layers}
    shares = trace.skip_ratios_of(None)
    for b in range(len(LENGTHS)):
        with method(reader(model)) as single:
            own, same_tokens = logits(model, alone(inputs, b))
        assert same(together[b : b + 1], own)
        assert tokens[b].tolist() == same_tokens[0].tolist()
        assert single.skip_ratio == pytest.approx(shares[b])
    assert torch.equal(logits(model, inputs)[0], bare)


#: Families in which no layer can be routed, and why.
REFUSED = {
    "mistral": "window of 64 tokens drops the first token",
    "mistral_window": "window of 8 tokens drops the first token",
    "gpt_oss": "learned sink logits",
}


@as_families_are_run
@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_layers_with_a_window_attend_and_are_listed(name):
    if name not in FAMILIES:
        pytest.skip("not among the families")
    model = tiny(name, "eager")
    with SinkRouter(-1.01, skip_layers=(0,))(reader(model)) as trace:
        logits(model, FAMILIES[name].inputs(model, lengths=LENGTHS))
    windows = [layer for layer, why in trace.skipped_layers.items() if "drops the first token" in why]
    assert windows
    assert trace.skip_ratios
    assert not set(windows) & set(trace.skip_ratios)


def passes(forward, model, ids, mask, cache):
    token, found = torch.full((len(ids), 1), 20), []
    with torch.inference_mode():
        for given in (ids, token, token, token):
            found.append(forward(input_ids=given, attention_mask=mask, past_key_values=cache).logits)
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    return found


def made(model, kind):
    return DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=32)


def close(found, expected):
    return all((a - b).abs().max() < 1e-5 for a, b in zip(found, expected, strict=True))


SETTINGS = [
    {"threshold": 0.02},
    {"threshold": CURVE, "surrogate": "value"},
    {"threshold": (*CURVE, (20, 0.0)), "fit": "cubic", "anchor": "sinks"},
    {"threshold": 1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("side", ["no", "left", "right"])
def test_no_value_is_read_on_an_accelerator_and_the_answers_are_the_same(kind, side, settings, monkeypatch):
    model = tiny_llama()
    ids = torch.cat([prompt(13, (2, 6)), prompt(13, ()).clamp(min=10)])
    mask = torch.ones_like(ids)
    if side != "no":
        mask[1, : 3 if side == "left" else None] = 0 if side == "left" else 1
        if side == "right":
            mask[1, -3:] = 0
    with SinkRouter(**settings)(model) as trace:
        expected = passes(model, model, ids, mask, made(model, kind))
    seen = trace.skip_ratio, trace.scores
    for module in (routing, router_keys, base, sinks):
        monkeypatch.setattr(module, "is_eager_cpu", lambda _: False)
    with SinkRouter(**settings)(model) as trace:
        with NoReads():
            found = passes(model, model, ids, mask, made(model, kind))
    assert close(found, expected)
    assert trace.skip_ratio == pytest.approx(seen[0])
    assert trace.scores == pytest.approx(seen[1], abs=1e-5)
