"""Which tokens and heads ACT changes."""

from __future__ import annotations

import pytest
import torch

from omnisink.methods.act import ACT
from omnisink.methods.act_heads import choose_heads
from omnisink.methods.registry import parse_method
from tests.methods.reference_edits import run
from tests.reference_outro import prompt, tiny_llama


@pytest.mark.parametrize("head", [(0, 0), (3, 2), (5, 3)])
def test_one_head_is_changed_at_a_time(head):
    model, ids = tiny_llama(), prompt(17)
    layer, number = head
    outputs = []
    hook = model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(
        lambda _, args: outputs.append(args[0].unflatten(-1, (4, 12)))
    )
    run(model, ids)
    with ACT(heads=(head,), threshold=0.05, beta=0.2)(model):
        run(model, ids)
    hook.remove()
    changed = (outputs[0] != outputs[1]).any(dim=-1).any(dim=1)[0]
    assert changed.tolist() == [h == number for h in range(4)]


def test_the_first_sink_is_left_and_nothing_else_is_marked_above_the_threshold():
    model, ids = tiny_llama(), prompt(17)
    bare = run(model, ids)
    with ACT(threshold=0.0, beta=0.0)(model):  # Every token is a sink: rows keep what the first one has.
        changed = run(model, ids)
    assert torch.equal(changed[0], bare[0])
    assert not torch.allclose(changed[1:], bare[1:])
    assert torch.isfinite(changed).all()


def test_heads_are_chosen_by_what_each_does_to_a_score():
    model = tiny_llama()
    good = {(2, 1), (3, 3), (4, 0)}
    asked = []

    def score(method):
        asked.append(method)
        return 0.5 if method is None else 0.6 if set(method.heads) <= good else 0.5

    chosen = choose_heads(score, model, ACT(beta=0.3))
    assert chosen == ACT(heads=tuple(sorted(good)), beta=0.3)
    assert asked[0] is None
    assert [one.heads for one in asked[1:]] == [((layer, head),) for layer in (2, 3, 4) for head in range(4)]
    assert choose_heads(lambda method: 0.0, model).heads == ()


def test_heads_are_named_on_the_command_line():
    assert parse_method("act:heads=[[2,0],[3,1]]:beta=0.1") == ACT(heads=((2, 0), (3, 1)), beta=0.1)
    assert parse_method("act:paper").alpha == 5.0
