"""Gradient checkpointing: true gradients, or refused where the second run would come without its pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from omnisink import OutRo, UnsupportedModelError
from tests.reference_outro import prompt, tiny_llama

IDS = prompt(13, (0, 6))


def gradients(model, method=None):
    """Loss and gradients of every weight."""
    method = method or OutRo(gamma=1.0)
    with method(model):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def trained():
    return tiny_llama(num_hidden_layers=4).train()


def around(module, kind):
    """Put a checkpoint around a module's forward."""
    forward = module.forward

    def checkpointed(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=kind, **kwargs)

    def positional(hidden, **kwargs):
        return checkpoint(lambda h: forward(h, **kwargs), hidden, use_reentrant=kind)

    module.forward = positional if kind else checkpointed


@pytest.mark.parametrize("kind", [True, False], ids=["reentrant", "not reentrant"])
def test_the_models_own_checkpointing_is_refused(trained, kind):
    model = copy.deepcopy(trained)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": kind})
    model.enable_input_require_grads()
    with pytest.raises(UnsupportedModelError, match="gradient checkpointing"):
        gradients(model)
    model.gradient_checkpointing_disable()
    model.zero_grad()
    assert gradients(model)[0] == gradients(copy.deepcopy(trained))[0]


@pytest.mark.parametrize("kind", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("part", ["layer", "attention"])
def test_checkpoints_around_parts_are_refused(trained, part, kind):
    model = copy.deepcopy(trained)
    model.enable_input_require_grads()
    if part == "attention":
        attention = model.model.layers[2].self_attn
        forward = attention.forward
        attention.forward = lambda hidden_states, **kwargs: checkpoint(
            lambda h: forward(h, **kwargs), hidden_states, use_reentrant=kind
        )
    else:
        around(model.model.layers[2], kind)
    with pytest.raises(UnsupportedModelError, match="gradient checkpointing"):
        gradients(model)


@pytest.mark.parametrize("kind", [True, False], ids=["reentrant", "not reentrant"])
def test_a_checkpoint_around_the_whole_text_model_gives_true_gradients(trained, kind):
    expected_loss, expected = gradients(copy.deepcopy(trained))
    model = copy.deepcopy(trained)
    text = model.model

    def run(ids, anchor):
        return text(input_ids=ids, use_cache=False).last_hidden_state

    with OutRo(gamma=1.0)(model):
        hidden = checkpoint(run, IDS, torch.zeros(1, requires_grad=True), use_reentrant=kind)
        loss = model.loss_function(model.lm_head(hidden), IDS, vocab_size=96)
        loss.backward()
    assert float(loss.detach()) == pytest.approx(expected_loss, abs=1e-6)
    untouched = copy.deepcopy(trained)
    untouched(input_ids=IDS, labels=IDS).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name
    other = untouched.model.layers[1].self_attn.v_proj.weight.grad
    assert (other - expected["model.layers.1.self_attn.v_proj.weight"]).abs().max() > 1e-3  # or that proves nothing


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_checkpointing_does_no_harm(trained, mode):
    model = copy.deepcopy(trained)
    with mode(), OutRo(gamma=1.0)(model):
        expected = model(input_ids=IDS, use_cache=False).logits
        for kind in (True, False):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": kind})
            assert torch.equal(model(input_ids=IDS, use_cache=False).logits, expected)


def test_in_evaluation_mode_it_is_off(trained):
    model = copy.deepcopy(trained).eval()
    expected = gradients(model)[1]
    model.zero_grad()
    model.gradient_checkpointing_enable()
    found = gradients(model)[1]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_tensors_saved_on_the_cpu_do_no_harm(trained):
    model = copy.deepcopy(trained)
    _, expected = gradients(copy.deepcopy(trained))
    with torch.autograd.graph.save_on_cpu():
        found = gradients(model)[1]
    assert all(torch.allclose(found[name], expected[name]) for name in expected)


def test_what_is_noted_for_the_check_keeps_no_graph(trained):
    model = copy.deepcopy(trained)
    with OutRo(gamma=1.0)(model) as trace:
        model(input_ids=IDS, use_cache=False)
    finite = trace.record.finite
    assert not any(m.requires_grad for m in [*finite.magnitudes.values(), finite.prompt, finite.generated])
