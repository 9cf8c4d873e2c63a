"""Controls of OutRo: the rotation itself, and the same angles toward something else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from transformers import DynamicCache

from omnisink.methods.base import Method
from omnisink.methods.controls import OutRoControl
from omnisink.methods.outro import OutRo
from tests.maths.test_rotation import angle
from tests.methods.reference_edits import generated, padded, run
from tests.reference_outro import prompt, tiny_llama

ROWS = [prompt(13, (0, 6)), prompt(8)]


@dataclass(frozen=True)
class Before(Method):
    """Keep the head outputs and values that a method attached after this one is given."""

    def head_output(self, call, output, context):
        context.record.measured.setdefault("output", {})[call.layer] = output.clone()
        context.record.measured.setdefault("value", {})[call.layer] = call.value.clone()
        return output


@dataclass(frozen=True)
class After(Before):
    """Keep what it has made of them."""


def turned(model, method, inputs, continuation=()):
    """Run a prefill and steps; return head outputs before and after the method, and values, of the last pass."""
    cache = DynamicCache(config=model.config)
    with Before()(model) as before, method(model) as trace, After()(model) as after, torch.inference_mode():
        model(**inputs, past_key_values=cache)
        for t in continuation:
            model(input_ids=torch.full((len(inputs["input_ids"]), 1), t), past_key_values=cache)
    return before.record.measured["output"], after.record.measured["output"], before.record.measured["value"], trace


SETTINGS = [{}, {"gamma": 0.5, "relax": False}, {"gamma": -0.7}, {"decode": False}, {"rotate": False}]


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_with_the_sink_as_direction_it_is_outro_to_the_bit(settings, backend):
    model, inputs = tiny_llama(backend), padded(ROWS)
    with OutRo(**settings)(model) as plain:
        expected, tokens = generated(model, inputs)
    with OutRoControl(**settings)(model) as trace:
        found, same = generated(model, inputs)
    assert torch.equal(found, expected)
    assert torch.equal(tokens, same)
    assert trace.rotated_tokens == plain.rotated_tokens
    assert trace.relaxed == plain.relaxed
    assert not torch.equal(found, generated(model, inputs)[0])


@pytest.mark.parametrize("direction", ["random", "layer"])
@pytest.mark.parametrize("generating", [False, True])
def test_a_control_turns_the_same_tokens_as_far_toward_something_else(direction, generating):
    model, inputs = tiny_llama(), padded(ROWS)
    continuation = (20, 31) if generating else ()
    # One layer at a time, or the layers after it would not be given the same head outputs.
    for layer in (0, 1, 3):
        how = {"gamma": 0.8, "relax": False, "detect_layers": (layer,)}
        before, toward_sink, _, _ = turned(model, OutRoControl(**how), inputs, continuation)
        same, found, values, trace = turned(model, OutRoControl(direction=direction, **how), inputs, continuation)
        if not generating:
            assert torch.equal(before[layer], same[layer])
        source, expected, control = before[layer], toward_sink[layer], found[layer]
        if direction == "layer" and layer == 0:
            assert torch.equal(control, same[layer])
            assert "no earlier layer" in trace.skipped_layers[0]
            continue
        if generating:  # The prompt was turned otherwise, so that only lengths can be compared.
            source = same[layer]
            assert torch.allclose(control.norm(dim=-1), source.norm(dim=-1), rtol=1e-5)
            assert not torch.equal(control, source)
            continue
        token_mask = inputs["attention_mask"].bool()
        sinks = trace.record.sinks[layer]
        assert sinks.sum(dim=1).tolist() == [2, 1]
        assert torch.equal(control[sinks | ~token_mask], source[sinks | ~token_mask])
        free = token_mask & ~sinks
        assert (angle(source, control) - angle(source, expected))[free].abs().max() < 1e-6
        assert angle(source, control)[free].max() > 0.05
        assert torch.allclose(control[free].norm(dim=-1), source[free].norm(dim=-1), rtol=1e-5)
        # The turn is toward the direction, in its plane with the output: nothing else is added.
        if direction == "random":
            generator = torch.Generator().manual_seed(layer)
            aims = torch.nn.functional.normalize(torch.randn(4, 12, generator=generator), dim=-1).expand(2, 4, 12)
        else:
            mean = torch.stack([values[layer - 1][b][:, sinks[b]].mean(dim=1) for b in range(2)])
            aims = torch.nn.functional.normalize(mean, dim=-1).repeat_interleave(2, dim=1)
        shift, aims = (control - source).double(), aims[:, None].double().expand_as(control)
        basis = torch.linalg.qr(torch.stack([source.double(), aims], dim=-1)).Q
        outside = shift - (basis @ (basis.mT @ shift[..., None]))[..., 0]
        assert outside[free].norm(dim=-1).max() < 1e-6 * source.abs().max() * 12
        moved = free[..., None] & (angle(source, control) > 1e-3)
        assert ((shift * aims).sum(dim=-1)[moved] > 0).all()
        away = (torch.nn.functional.cosine_similarity(expected - source, control - source, dim=-1))[moved]
        assert away.abs().mean() < 0.9  # another direction than the sink's


@pytest.mark.parametrize("gamma", [-0.7, 0.8])
@pytest.mark.parametrize("direction", ["opposite", "random"])
def test_other_directions_are_turned_to_by_the_angle_of_either_sign(direction, gamma):
    model, inputs = tiny_llama(), padded(ROWS)
    how = {"gamma": gamma, "relax": False, "detect_layers": (1,)}
    before, to_sink, values, trace = turned(model, OutRoControl(**how), inputs)
    same, found, _, _ = turned(model, OutRoControl(direction=direction, **how), inputs)
    assert torch.equal(before[1], same[1])
    sinks = trace.record.sinks[1]
    free = inputs["attention_mask"].bool() & ~sinks
    expected = angle(before[1], to_sink[1])[free]
    assert (angle(before[1], found[1])[free] - expected).abs().max() < 1e-6
    assert expected.max() > 0.05
    mean = torch.stack([values[1][b][:, sinks[b]].mean(dim=1) for b in range(2)]).repeat_interleave(2, dim=1)
    nearer = ((found[1] - before[1]) * mean[:, None]).sum(dim=-1)[free][expected > 0.01]
    if direction == "opposite":  # The other way along the sink's value.
        assert ((nearer < 0) == (gamma > 0)).all()
    else:
        assert (nearer < 0).any()
        assert (nearer > 0).any()


def test_random_directions_differ_by_seed_layer_and_head_and_repeat():
    model, inputs = tiny_llama(), padded(ROWS)
    with torch.inference_mode():
        runs = []
        for seed in (0, 0, 1):
            with OutRoControl(direction="random", gamma=0.5, seed=seed)(model):
                runs.append(model(**inputs).logits)
    assert torch.equal(runs[0], runs[1])
    assert (runs[0] - runs[2]).abs().max() > 1e-3


@pytest.mark.parametrize("direction", ["sink", "random", "layer"])
def test_the_mean_angle_is_that_between_the_outputs(direction):
    model, inputs = tiny_llama(), padded(ROWS)
    before, after, _, trace = turned(model, OutRoControl(direction=direction, gamma=0.8, relax=False), inputs)
    token_mask = inputs["attention_mask"].bool()
    ever = torch.zeros_like(token_mask)
    for layer, found in trace.record.measured["angle"].items():
        ever |= trace.record.sinks[layer]
        degrees = torch.rad2deg(angle(before[layer], after[layer]))
        for b in range(2):
            expected = float(degrees[b][(token_mask & ~ever)[b]].mean())
            assert float(found[b]) == pytest.approx(expected, abs=1e-3)
    assert math.degrees(0.01) < max(float(a.max()) for a in trace.record.measured["angle"].values())


def test_gradients_reach_the_prompt_through_a_control():
    model = tiny_llama()
    embedded = model.get_input_embeddings()(prompt(9)).detach().requires_grad_()
    with OutRoControl(direction="random", gamma=0.3)(model):
        model(inputs_embeds=embedded).logits.sum().backward()
    assert torch.isfinite(embedded.grad).all()
    assert embedded.grad.abs().sum() > 0


@pytest.mark.parametrize("direction", ["random", "layer"])
def test_controls_turn_generated_tokens_only_where_asked(direction):
    model, ids = tiny_llama(), prompt(13, (0, 6))
    both = {}
    for decode in (False, True):
        with OutRoControl(direction=direction, gamma=0.8, decode=decode)(model):
            both[decode] = run(model, ids, (20, 31))
    assert torch.equal(both[True][:13], both[False][:13])
    assert (both[True][13:] - both[False][13:]).abs().amax(dim=-1).min() > 1e-4
