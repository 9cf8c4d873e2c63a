"""What comes before a layer is replayed to the bit, or the replay is refused."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from omnisink import OmnisinkError, OutRo, find_sinks
from omnisink.cli.demo import CLIP
from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.replay import replay
from omnisink.methods.find import SinkFinder
from omnisink.verification.families import FAMILIES
from tests.decoder.test_attachment import Failing, fingerprint
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import ACCEPTED, MARKS, in_turn, reader, tiny

pytestmark = MARKS

TEXT = [(*cell, "text") for cell in in_turn()]
MEDIA = [(name, FAMILIES[name].backends[0], "media") for name in ACCEPTED if FAMILIES[name].multimodal_inputs]
#: The tiny models have five layers: the towers alone, one layer, the middle, all but the last.
STARTS = [0, 1, 2, 4]


@dataclass(frozen=True)
class LateOutRo(OutRo):
    """OutRo from a layer on."""

    first: int = 0

    def head_output(self, call, output, context):
        return output if call.layer < self.first else super().head_output(call, output, context)


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


def family_model(name, backend):
    return reader(tiny(name, backend))


def run(model, inputs, **options):
    return model(**inputs, **{"use_cache": False, **options}).logits


@contextmanager
def counted(modules):
    """Count the calls of modules, under their keys."""
    calls = Counter()
    with ExitStack() as stack:
        for name, module in modules.items():
            count = partial(lambda name, *_: calls.update([name]), name)
            stack.callback(module.register_forward_pre_hook(count).remove)
        yield calls


@pytest.mark.parametrize(("name", "backend", "kind"), [*TEXT, *MEDIA])
def test_logits_are_the_same_to_the_bit_with_and_without_a_method(name, backend, kind):
    family = FAMILIES[name]
    model = family_model(name, backend)
    inputs = family.inputs(model) if kind == "text" else family.multimodal_inputs(model)
    anatomy = read_anatomy(model)
    attention = {layer: site.module for layer, site in anatomy.attention.items()}
    with counted(attention) as calls:
        alone = run(model, inputs)
        ran = dict(calls)  # A layer that looks at an image is left out of a text.
        with replay(anatomy) as tape:
            assert torch.equal(run(model, inputs), alone)
            for start in STARTS:
                with LateOutRo(gamma=0.5, first=start)(model) as trace:
                    expected = run(model, inputs)
                calls.clear()
                with tape.from_layer(start):
                    plain = run(model, inputs)
                    assert calls == {layer: n for layer, n in ran.items() if layer >= start}
                    with LateOutRo(gamma=0.5, first=start)(model) as again:
                        changed = run(model, inputs)
                assert torch.equal(plain, alone)
                assert torch.equal(changed, expected)
                assert torch.equal(changed, alone) == (not trace.rotated_tokens)
                assert again.rotated_tokens == trace.rotated_tokens
                assert {s: again.sinks.positions(s) for s in again.sinks.examined} == {
                    s: trace.sinks.positions(s) for s in trace.sinks.examined
                }
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(run(model, inputs), alone)


def tower_parts(anatomy):
    """Attention and convolutions beside the decoder's layers, by name: they are the towers'."""
    inner = {module for layer in anatomy.layers for module in layer.modules()}
    return {
        path: module
        for path, module in anatomy.model.named_modules()
        if module not in inner and (type(module).__name__.endswith("Attention") or "Conv" in type(module).__name__)
    }


@pytest.mark.parametrize(("name", "backend", "kind"), MEDIA)
def test_towers_do_not_run_again_and_what_follows_the_decoder_does(name, backend, kind):
    model = family_model(name, backend)
    inputs = FAMILIES[name].multimodal_inputs(model)
    anatomy = read_anatomy(model)
    with replay(anatomy) as tape, counted({**tower_parts(anatomy), "lm_head": model.lm_head}) as calls:
        run(model, inputs)
        assert len(calls) > 1
        calls.clear()
        with tape.from_layer(0):
            run(model, inputs)
        assert calls == {"lm_head": 1}


@pytest.mark.parametrize("name", ["llama", "qwen3_vl", "qwen3_omni_moe_thinker", "gemma4", "gemma3_vision"])
def test_residual_streams_are_those_that_entered_the_layers(name):
    family = FAMILIES[name]
    model = family_model(name, family.backends[0])
    inputs = (family.multimodal_inputs or family.inputs)(model)
    anatomy = read_anatomy(model)
    entered, left = {}, {}

    def note(index, layer, args, output):
        entered[index], left[index] = args[0].clone(), output.clone()

    with ExitStack() as stack:
        for index, layer in enumerate(anatomy.layers):
            stack.callback(layer.register_forward_hook(partial(note, index)).remove)
        run(model, inputs)
    with replay(anatomy) as tape:
        run(model, inputs)
        for start in (3, 1):
            with tape.from_layer(start):
                run(model, inputs)
    for layer in range(5):
        assert torch.equal(tape.residual(layer), entered[layer])
    assert torch.equal(tape.residual(5), left[4])
    if name.startswith("qwen3"):
        assert not torch.equal(entered[1], left[0])  # Features of the image are added between the layers.
    tape.residual(2).zero_()
    assert torch.equal(tape.residual(2), entered[2])


def test_hooks_on_layers_that_are_not_run_see_the_residual_stream():
    model, ids = tiny_llama(), prompt(12, sinks=(0, 5))
    expected = find_sinks(model, input_ids=ids, layers=range(6))
    with replay(read_anatomy(model)) as tape:
        run(model, {"input_ids": ids})
        with tape.from_layer(5):
            found = find_sinks(model, input_ids=ids, layers=range(6))
        with SinkFinder(layers=tuple(range(6)))(model) as outside, tape.from_layer(3):
            run(model, {"input_ids": ids})
    for layer in range(6):
        assert found.positions(layer) == expected.positions(layer) == outside.sinks.positions(layer)
        assert found.magnitude(layer) == expected.magnitude(layer)
    assert expected.layers


@pytest.mark.parametrize("ending", ["quiet", "exception in the block", "exception in a layer", "refused"])
def test_the_model_is_as_it_was(ending):
    model, ids = tiny_llama(), prompt(9)
    before = fingerprint(model)
    if ending == "exception in the block":
        with pytest.raises(KeyboardInterrupt), replay(read_anatomy(model)) as tape:
            run(model, {"input_ids": ids})
            with tape.from_layer(2):
                raise KeyboardInterrupt
    elif ending == "exception in a layer":
        with pytest.raises(RuntimeError, match="on purpose"), replay(read_anatomy(model)), Failing()(model):
            run(model, {"input_ids": ids})
    elif ending == "refused":
        with pytest.raises(OmnisinkError, match="nothing is recorded"), replay(read_anatomy(model)) as tape:
            with tape.from_layer(1):
                pass
    else:
        with replay(read_anatomy(model)) as tape:
            run(model, {"input_ids": ids})
            with tape.from_layer(2), OutRo()(model):
                run(model, {"input_ids": ids})
    assert fingerprint(model) == before


def test_outside_its_blocks_a_tape_changes_and_records_nothing():
    model, first, second = tiny_llama(), {"input_ids": prompt(9)}, {"input_ids": prompt(7)}
    alone = run(model, second)
    with replay(read_anatomy(model)) as tape:
        plain = run(model, first)
        assert torch.equal(run(model, second), alone)
        assert tape.residual(0).shape[1] == 9
        with tape.from_layer(4):
            with tape.from_layer(1):
                assert torch.equal(run(model, first), plain)
            with replay(read_anatomy(model)) as inner:
                run(model, first)
                with inner.from_layer(2):
                    assert torch.equal(run(model, first), plain)
            assert torch.equal(run(model, first), plain)


def test_a_change_in_place_does_not_reach_the_tape():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    anatomy = read_anatomy(model)

    def spoil(module, args, output):
        output.mul_(2)

    with replay(anatomy) as tape:
        plain = run(model, inputs)
        with tape.from_layer(3):
            spoiling = anatomy.layers[2].register_forward_hook(spoil)
            assert not torch.equal(run(model, inputs), plain)
            spoiling.remove()
            assert torch.equal(run(model, inputs), plain)
    with replay(anatomy) as tape:  # Changed in the recorded run, what entered the next layer is the changed one.
        spoiling = anatomy.layers[2].register_forward_hook(spoil)
        changed = run(model, inputs)
        with tape.from_layer(4):
            assert torch.equal(run(model, inputs), changed)
        spoiling.remove()


def test_gradients_reach_what_is_run_and_stop_at_what_is_replayed():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    weights = [layer.self_attn.v_proj.weight for layer in model.model.layers]
    with torch.enable_grad(), replay(read_anatomy(model)) as tape:
        expected = torch.autograd.grad(run(model, inputs).logsumexp(-1).sum(), weights[3:])
        with tape.from_layer(3):
            found = torch.autograd.grad(run(model, inputs).logsumexp(-1).sum(), weights[2:], allow_unused=True)
    assert found[0] is None
    assert all(torch.equal(a, b) for a, b in zip(found[1:], expected, strict=True))


def test_a_recording_made_without_gradients_can_be_replayed_with_them():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    with replay(read_anatomy(model)) as tape:
        with torch.inference_mode():
            run(model, inputs)
        with torch.enable_grad(), tape.from_layer(3):
            run(model, inputs).sum().backward()
    assert model.model.layers[3].mlp.up_proj.weight.grad is not None
    assert model.model.layers[2].mlp.up_proj.weight.grad is None


def test_from_layer_0_the_words_may_change_and_an_answer_may_be_generated():
    model = family_model("qwen2_5_omni_thinker", "sdpa")
    inputs = FAMILIES["qwen2_5_omni_thinker"].multimodal_inputs(model)
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, -1] += 1
    options = {"min_new_tokens": 3, "max_new_tokens": 3, "do_sample": False}
    expected, answer = run(model, other), model.generate(**inputs, **options)
    with replay(read_anatomy(model)) as tape:
        run(model, inputs)
        with tape.from_layer(0):
            assert torch.equal(run(model, other), expected)
            assert torch.equal(model.generate(**inputs, **options), answer)
        with tape.from_layer(1), pytest.raises(OmnisinkError, match="another prompt"):
            run(model, other)


@pytest.mark.real
def test_smolomni_answers_the_same_from_every_layer(smolomni):
    model = smolomni.model
    choices = ["the red ball", "the blue ball"]
    inputs = {**smolomni.inputs("What makes the sound?", video=CLIP, choices=choices), "logits_to_keep": 1}
    method = OutRo(gamma=0.3, relax_layers=(20,), detect_layers=tuple(range(20, 28)))
    with replay(read_anatomy(model)) as tape:
        plain = run(model, inputs)
        with method(model) as trace:
            changed = run(model, inputs)
        assert trace.rotated_tokens
        assert not torch.equal(plain, changed)
        for start in (0, 12, 20):
            with tape.from_layer(start):
                assert torch.equal(run(model, inputs), plain)
                with method(model):
                    assert torch.equal(run(model, inputs), changed)
