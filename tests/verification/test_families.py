"""Every family, padded on either side, with either kind of cache; and all of its attention backends agree."""

from __future__ import annotations

import pytest
import torch

from omnisink import OutRo, UnsupportedModelError, find_sinks
from omnisink.decoder.anatomy import read_anatomy
from omnisink.verification.families import FAMILIES
from omnisink.verification.tiny import SINK_TOKEN, planted_positions
from tests.verification.family_cells import (
    ACCEPTED,
    LENGTHS,
    MARKS,
    REFUSED,
    SEVERAL,
    alone,
    in_turn,
    reader,
    same,
    that_see_or_hear,
    tiny,
)

pytestmark = MARKS

METHOD = OutRo(gamma=0.5)


def generated(model, inputs, **options):
    return reader(model).generate(
        **inputs,
        min_new_tokens=3,
        max_new_tokens=3,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("side", ["left", "right"])
def test_planted_tokens_are_the_sinks_by_a_plain_median(name, side):
    family = FAMILIES[name]
    model = tiny(name, family.backends[0])
    inputs = family.inputs(model, lengths=LENGTHS, padding_side=side)
    streams = {}

    def note(index):
        def hook(_, args, kwargs):
            streams[index] = (args[0] if args else kwargs["hidden_states"]).double()

        return hook

    hooks = [
        layer.register_forward_pre_hook(note(i), with_kwargs=True)
        for i, layer in enumerate(read_anatomy(model).layers)
    ]
    with torch.inference_mode():
        reader(model)(**inputs)
    for hook in hooks:
        hook.remove()
    found = find_sinks(reader(model), **inputs)
    token_mask = inputs["attention_mask"].bool()
    agreeing = 0
    for layer in found.examined:
        for b, length in enumerate(LENGTHS):
            rows = streams[layer][b][token_mask[b]].abs()
            threshold = max(100.0, 1000.0 * float(rows.flatten().median()))
            marked = (rows.amax(dim=1) >= threshold).nonzero().flatten().tolist()
            first = int(token_mask[b].nonzero()[0])
            assert found.positions(layer, b) == [first + t for t in marked]
            agreeing += marked == planted_positions(b, length)
    assert agreeing >= len(LENGTHS)


@pytest.mark.parametrize("name", ACCEPTED)
def test_without_a_planted_sink_nothing_is_found_and_nothing_changes(name):
    family = FAMILIES[name]
    model = tiny(name, family.backends[0], plant=False)
    inputs = family.inputs(model, lengths=LENGTHS)
    plain = generated(model, inputs)
    with METHOD(model) as trace:
        idle = generated(model, inputs)
    assert trace.sinks.layers == []
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, idle.logits, strict=True))


LEFT = [(*cell, cache) for number, cache in enumerate(("dynamic", "static")) for cell in in_turn(number, cache)]


@pytest.mark.parametrize(("name", "backend", "cache"), [*LEFT, ("gemma4", "flex_attention", "dynamic")])
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name, backend, cache):
    family = FAMILIES[name]
    model = tiny(name, backend)
    inputs = family.inputs(model, lengths=LENGTHS)
    options = {"cache_implementation": "static"} if cache == "static" else {}
    before = generated(model, inputs, **options)
    with METHOD(model) as trace:
        together = generated(model, inputs, **options)
    after = generated(model, inputs, **options)
    assert all(torch.equal(a, b) for a, b in zip(before.logits, after.logits, strict=True))
    assert not same(together.logits[0], before.logits[0])
    assert trace.rotated_tokens
    # Flex attention does not let Gemma 4 run a layer on the last token alone.
    partial = family.expectation == "partial" and (name, backend) != ("gemma4", "flex_attention")
    assert bool(trace.skipped_layers) == partial
    for b in range(len(LENGTHS)):
        with METHOD(model) as single:
            one = generated(model, alone(inputs, b), **options)
        first = int(inputs["attention_mask"][b].argmax())
        for layer in trace.sinks.examined:
            assert trace.sinks.positions(layer, b) == [first + p for p in single.sinks.positions(layer)]
        assert all(same(t[b : b + 1], o) for t, o in zip(together.logits, one.logits, strict=True))


@pytest.mark.parametrize(("name", "backend"), in_turn(1, "right"))
def test_a_right_padded_batch_gives_each_sequence_what_it_gets_alone(name, backend):
    family = FAMILIES[name]
    model = tiny(name, backend)
    inputs = family.inputs(model, lengths=LENGTHS, padding_side="right")
    with torch.inference_mode():
        with METHOD(model):
            together = reader(model)(**inputs).logits
        for b, length in enumerate(LENGTHS):
            with METHOD(model):
                one = reader(model)(**alone(inputs, b)).logits
            assert same(together[b, :length], one[0])


@pytest.mark.parametrize("name", SEVERAL)
def test_backends_agree(name):
    """With the test above, a padded batch is on every backend what its prompts are alone."""
    family = FAMILIES[name]
    found = []
    for backend in family.backends:
        model = tiny(name, backend)
        with METHOD(model) as trace:
            logits = generated(model, family.inputs(model, lengths=LENGTHS)).logits
        found.append(
            (logits, {layer: [trace.sinks.positions(layer, b) for b in (0, 1)] for layer in trace.sinks.examined})
        )
    (expected, sinks), *others = found
    for logits, positions in others:
        assert all(same(a, b) for a, b in zip(logits, expected, strict=True))
        assert positions == sinks


@pytest.mark.parametrize(("name", "backend"), that_see_or_hear(in_turn(0, "multimodal")))
def test_a_multimodal_prompt_passes_through_the_towers_and_the_method(name, backend):
    family = FAMILIES[name]
    model = tiny(name, backend)
    inputs = family.multimodal_inputs(model)
    before = generated(model, inputs)
    with METHOD(model) as trace:
        inside = generated(model, inputs)
    after = generated(model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(before.logits, after.logits, strict=True))
    assert trace.rotated_tokens
    assert not same(inside.logits[0], before.logits[0])
    changed = {
        k: torch.randn(v.shape, generator=torch.Generator().manual_seed(9)) if v.is_floating_point() else v
        for k, v in inputs.items()
    }
    assert not same(generated(model, changed).logits[0], before.logits[0])  # the towers were really asked


@pytest.mark.parametrize("name", REFUSED)
def test_refused_families_say_why(name):
    model = tiny(name, FAMILIES[name].backends[0])
    with pytest.raises(UnsupportedModelError) as refusal, METHOD(model):
        pass
    assert type(model).__name__ in str(refusal.value)
    assert FAMILIES[name].note


def test_names_are_unique_and_notes_explain():
    for name, family in FAMILIES.items():
        assert family.name == name
        assert family.note or family.expectation == "supported", name


@pytest.mark.parametrize(("name", "backend"), in_turn(2))
def test_a_sink_at_the_end_sees_everything_already(name, backend):
    """Relaxing the last token must change nothing: same scale, cap, learned sinks and mask as the module's own."""
    model = tiny(name, backend)
    inputs = FAMILIES[name].inputs(model, lengths=(7, 6))
    ids = inputs["input_ids"]
    ids[ids == SINK_TOKEN] = SINK_TOKEN + 20
    ids[:, -1] = SINK_TOKEN
    token_mask = inputs["attention_mask"].bool()
    with torch.inference_mode():
        plain = reader(model)(**inputs).logits
        with OutRo(rotate=False)(model) as trace:
            relaxed = reader(model)(**inputs).logits
    assert [(s, p) for _, s, p in trace.relaxed] == [(0, 6), (1, 6)]
    assert same(relaxed[token_mask], plain[token_mask])
