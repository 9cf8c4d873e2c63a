"""Layer hooks: on in a prefill, aside in a decode step that has no use for them, and gone at the end."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import OutRo
from omnisink.methods.base import Method
from tests.reference_outro import prompt, tiny_llama


class Nothing(Method):
    """A method that does not say that it looks at prompts alone."""

    def head_output(self, call, output, context):
        return output


def hooks_during_passes(model, method, cache, lengths):
    """How many layers have a hook of ours while the last one runs, pass by pass."""
    seen = []
    probe = model.model.layers[-1].mlp.register_forward_hook(
        lambda *_: seen.append(sum(len(layer._forward_pre_hooks) for layer in model.model.layers))
    )
    with method(model), torch.inference_mode():
        for n in lengths:
            model(input_ids=prompt(n), past_key_values=cache)
            assert sum(len(layer._forward_pre_hooks) for layer in model.model.layers) == 4
    probe.remove()
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)
    assert not any(layer._forward_pre_hooks_with_kwargs for layer in model.model.layers)
    return seen


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_hooks_are_aside_while_one_token_is_added(kind):
    model = tiny_llama(num_hidden_layers=4)
    cache = DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=32)
    assert hooks_during_passes(model, OutRo(), cache, (9, 1, 1, 3, 1)) == [4, 0, 0, 4, 0]


def test_a_method_that_may_look_at_every_pass_keeps_them():
    model = tiny_llama(num_hidden_layers=4)
    assert hooks_during_passes(model, Nothing(), DynamicCache(config=model.config), (9, 1)) == [4, 4]


def test_a_prompt_of_one_token_is_a_prompt():
    model = tiny_llama(num_hidden_layers=4)
    assert hooks_during_passes(model, OutRo(), DynamicCache(config=model.config), (1, 1)) == [4, 0]


def test_a_step_that_fails_leaves_nothing_aside():
    model = tiny_llama(num_hidden_layers=4)
    cache = DynamicCache(config=model.config)
    with OutRo()(model) as trace, torch.inference_mode():
        model(input_ids=prompt(9), past_key_values=cache)
        broken = model.model.layers[2].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(input_ids=torch.tensor([[20]]), past_key_values=cache)
        broken.remove()
        model(input_ids=prompt(11, (2, 4)), past_key_values=DynamicCache(config=model.config))
        assert trace.sinks.positions(0) == [2, 4]
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)


def test_the_hooks_of_others_keep_their_place():
    model = tiny_llama(num_hidden_layers=4)
    order = []
    first = model.model.layers[0].register_forward_pre_hook(lambda *_: order.append("first"))
    cache = DynamicCache(config=model.config)
    with OutRo()(model), torch.inference_mode():
        for n in (9, 1, 1):
            model(input_ids=prompt(n), past_key_values=cache)
        assert next(iter(model.model.layers[0]._forward_pre_hooks)) == first.id
    assert order == ["first"] * 3
    first.remove()
