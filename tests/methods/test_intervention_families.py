"""Interventions in every family: each prompt of a batch gets what it gets alone, and all attention backends agree."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from omnisink.decoder.anatomy import read_anatomy
from omnisink.errors import OmnisinkError
from omnisink.methods.ablation import ReplaceSinkValue, ZeroHeads, ZeroSinkKey
from omnisink.methods.base import Method
from omnisink.methods.controls import OutRoControl
from omnisink.methods.criteria import Positions
from omnisink.methods.knockout import KnockoutTokens, PruneTokens
from omnisink.methods.outro import OutRo
from omnisink.verification.families import FAMILIES
from tests.verification.family_cells import LENGTHS, MARKS, SEVERAL, alone, in_turn, reader, same, tiny

pytestmark = MARKS

#: Hiding and pruning change masks, of which every family has its own; the others are the same code in every family.
CHANGES = ("zero value", "zero key", "control")
CASES = [
    *((*cell, "hidden") for cell in [*in_turn(), ("gemma4", "flex_attention")]),
    *((*cell, "pruned") for cell in in_turn(1)),
    *((*cell, CHANGES[number % len(CHANGES)]) for number, cell in enumerate(in_turn(2))),
    *(("gemma4", "sdpa", what) for what in CHANGES),
]


@dataclass(frozen=True)
class Kept(Method):
    """Keep the head outputs."""

    def head_output(self, call, output, context):
        context.record.measured.setdefault("output", {})[call.layer] = output.clone()
        return output


def method_for(what, model, inputs):
    """Return the method; what prunes needs the prompt, and a layer with attention that ranks."""
    offered = inputs["attention_mask"].cumsum(dim=1) > 3
    layer = min(read_anatomy(reader(model)).attention)
    return {
        "hidden": KnockoutTokens(),
        "zero value": ReplaceSinkValue(),
        "zero key": ZeroSinkKey(channels=4),
        "pruned": PruneTokens(Positions((0,)), candidates=offered, layer=layer, keep=0.4),
        "control": OutRoControl(direction="random", gamma=0.5, relax=False),
    }[what]


def logits(model, inputs, steps):
    """Logits of a prefill, and of greedy tokens after it."""
    made = reader(model).generate(
        **inputs, min_new_tokens=steps, max_new_tokens=steps, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return torch.stack(made.logits, dim=1)


@pytest.mark.parametrize(("name", "backend", "what"), CASES)
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name, backend, what):
    family = FAMILIES[name]
    model = tiny(name, backend)
    inputs = family.inputs(model, lengths=LENGTHS)
    method = method_for(what, model, inputs)
    if name == "gpt_oss" and isinstance(method, KnockoutTokens):
        with pytest.raises(OmnisinkError, match="learned sink logits"), method(reader(model)):
            logits(model, inputs, 1)
        return
    # A window that is shorter than the prompt has forgotten the sinks after it: then there is the prompt only.
    forgets = any(w in name for w in ("mistral_window", "gemma3")) and name != "gemma3_vision"
    steps = 1 if forgets and what != "control" else 3
    bare = logits(model, inputs, steps)
    with method(reader(model)) as trace:
        together = logits(model, inputs, steps)
    if name == "gemma4":
        shared = {layer for layer, why in trace.skipped_layers.items() if "1 of 16 tokens alone" in why}
        assert shared == (set() if backend == "flex_attention" else {3, 4})
    assert torch.equal(logits(model, inputs, steps), bare)
    assert not same(together[:, 0], bare[:, 0])
    for b in range(len(LENGTHS)):
        one = alone(inputs, b)
        with method_for(what, model, one)(reader(model)):
            assert same(together[b : b + 1], logits(model, one, steps))


@pytest.mark.parametrize("name", [name for name in SEVERAL if name != "gpt_oss"])
def test_hidden_tokens_are_hidden_from_every_backend(name):
    """With the test above, a padded batch is on every backend what its prompts are alone."""
    found = []
    for backend in FAMILIES[name].backends:
        model = tiny(name, backend)
        with KnockoutTokens()(reader(model)), torch.inference_mode():
            inputs = FAMILIES[name].inputs(model, lengths=LENGTHS)
            found.append(reader(model)(**inputs).logits[inputs["attention_mask"].bool()])
    assert all(same(other, found[0]) for other in found[1:])


@pytest.mark.parametrize(("name", "backend"), in_turn(1))
def test_zeroed_heads_leave_nothing_in_the_head_outputs(name, backend):
    model = tiny(name, backend)
    inputs = FAMILIES[name].inputs(model, lengths=LENGTHS)
    layer = min(read_anatomy(reader(model)).attention)
    with torch.inference_mode():
        bare = reader(model)(**inputs).logits
        with ZeroHeads(((layer, 0), (layer, 3)))(reader(model)), Kept()(reader(model)) as after:
            changed = reader(model)(**inputs).logits
    output = after.record.measured["output"][layer]
    assert [bool(output[:, :, h].any()) for h in range(4)] == [False, True, True, False]
    assert not same(changed, bare)


def test_outro_leaves_layers_alone_that_are_run_on_the_last_token():
    """Gemma 4's layers with shared keys and values, when `generate` asks for the last logits."""
    model = tiny("gemma4", "sdpa")
    inputs = FAMILIES["gemma4"].inputs(model, lengths=LENGTHS)
    outro = OutRo(gamma=0.5, detect_layers=tuple(range(5)))
    with outro(model) as trace:
        together = logits(model, inputs, 3)
    assert trace.sinks.examined == [0, 1, 2]
    assert {layer for layer, why in trace.skipped_layers.items() if "1 of 16 tokens alone" in why} == {3, 4}
    assert not same(together, logits(model, inputs, 3))
    for b in range(len(LENGTHS)):
        with outro(model):
            assert same(together[b : b + 1], logits(model, alone(inputs, b), 3))
