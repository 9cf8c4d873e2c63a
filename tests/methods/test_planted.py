"""Models built so that the answer is known before anything is measured."""

from __future__ import annotations

import pytest
import torch

from omnisink.methods.ablation import ReplaceSinkValue, ZeroHeads, ZeroSinkKey
from omnisink.methods.criteria import MassiveActivation, SinkDimension
from omnisink.methods.knockout import KnockoutTokens
from omnisink.methods.measure import record
from tests.methods.reference_edits import run
from tests.reference_outro import PEAK, SINK, prompt, tiny_llama

LAYER = 1
#: The reading head and its key/value head; the channel of its keys that carries the sink. The slowest one, which
#: position encoding turns the least (by theta^(-10/12) a token), so that it means the same at every distance.
HEAD, KV_HEAD, CHANNEL = 2, 1, 5
WIDTH = 12


def built(read=0.0, share=0.0, spread=1.0):
    """Build a tiny Llama in whose layer `LAYER` one head's keys, queries and values are laid down.

    All tokens have channel 6 alike, and the sink alone has channel 5, massive. The key of the sink is `read` in one
    channel, the other keys are zero; queries of ordinary tokens are theirs in channel 6. The value of every token is
    `share` of one common vector and `spread` of what the weights were.
    """
    model = tiny_llama()
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[:, 6] = 1.0
        embedding[torch.arange(len(embedding)) != SINK, 5] = 0.0
        layer = model.model.layers[LAYER]
        for before in model.model.layers[:LAYER]:
            before.self_attn.o_proj.weight[[5, 6]] = 0
            before.mlp.down_proj.weight[[5, 6]] = 0
        norm = layer.input_layernorm
        norm.weight[:] = 1.0
        # After the norm, channel 5 of the sink is about sqrt(48); channel 6 of the others is theirs over their RMS.
        attention = layer.self_attn
        rows = slice(KV_HEAD * WIDTH, (KV_HEAD + 1) * WIDTH)
        attention.k_proj.weight[rows] = 0
        attention.k_proj.weight[KV_HEAD * WIDTH + CHANNEL, 5] = read / 48**0.5
        attention.q_proj.weight[HEAD * WIDTH : (HEAD + 1) * WIDTH] = 0
        attention.q_proj.weight[HEAD * WIDTH + CHANNEL, 6] = 1.0
        attention.v_proj.weight[rows] *= spread
        common = torch.linspace(-1, 1, WIDTH)
        attention.v_proj.weight[rows, 6] = share * common
        attention.v_proj.weight[rows, 5] = share * common
    return model


SINKS = [[0], [0, 6], [3, 4, 11]]


@pytest.mark.parametrize("sinks", SINKS, ids=str)
def test_planted_sinks_are_found_where_they_were_planted(sinks):
    model, ids = built(), prompt(13, tuple(sinks))
    found = record(model, others=(SinkDimension((5,), 6.0),), input_ids=ids)
    for criterion in (0, 1):
        assert found.sinks(criterion).positions(LAYER) == sinks
    expected = torch.zeros(13)
    expected[sinks] = PEAK
    assert torch.allclose(torch.from_numpy(found["magnitude"][0, LAYER])[sinks], expected[sinks], rtol=1e-3)
    assert abs(found["channel_peak"][0, LAYER, 5] - 48**0.5) < 0.05


@pytest.mark.parametrize("sinks", SINKS, ids=str)
def test_a_head_without_a_preference_gives_sinks_their_share_of_the_keys(sinks):
    """With zero keys every visible token has the same weight: the mass is a matter of counting."""
    found = record(built(read=0.0), input_ids=prompt(13, tuple(sinks)))
    others = [t for t in range(13) if t not in sinks]
    share = [sum(s <= t for s in sinks) / (t + 1) for t in others]
    assert found["mass"][0, LAYER, HEAD, 0] == pytest.approx(sum(share) / len(share), abs=1e-6)
    received = [sum(1 / (q + 1) for q in range(t, 13)) / (13 - t) for t in range(13)]
    assert found["received_most"][0, LAYER, HEAD] == pytest.approx(max(received), abs=1e-6)
    assert found["received_where"][0, LAYER, HEAD] == 0


def test_a_head_that_reads_only_the_sink_gives_it_all_its_mass():
    model, ids = built(read=500.0), prompt(13)
    found = record(model, input_ids=ids)
    assert found["mass"][0, LAYER, HEAD, 0] > 0.999
    assert found["received_most"][0, LAYER, HEAD] > 0.999
    assert found["received_where"][0, LAYER, HEAD] == 0
    assert found["sink_share"][0, LAYER, HEAD] == pytest.approx(1.0, abs=2e-3)
    assert found["sink_norm_ratio"][0, LAYER, HEAD] == pytest.approx(1.0, abs=2e-3)
    # All its outputs are the sink's value, so all are parallel.
    assert found["parallel"][0, LAYER, 0, HEAD] == pytest.approx(1.0, abs=1e-4)
    assert found["parallel"][0, LAYER, 1, HEAD] == pytest.approx(1.0, abs=1e-6)
    ordinary = [h for h in range(4) if h // 2 != KV_HEAD]
    assert (found["mass"][0, LAYER, ordinary, 0] < 0.6).all()
    key = found["sink_key"][0, LAYER, KV_HEAD]
    assert abs(key).argmax() == CHANNEL
    assert abs(key[CHANNEL]) == pytest.approx(500.0, rel=1e-3)


def test_shared_values_make_all_outputs_parallel_whatever_is_attended_to():
    found = record(built(read=0.0, share=5.0, spread=0.0), input_ids=prompt(13))
    for part in range(3):
        assert found["parallel"][0, LAYER, part, HEAD] == pytest.approx(1.0, abs=1e-5)
    different = record(tiny_llama(), input_ids=prompt(13))
    assert different["parallel"][0, LAYER, 2, HEAD] < 0.95


def test_zeroing_the_channel_that_carries_the_key_ends_the_attention_to_it():
    model, ids = built(read=500.0), prompt(13)
    with ZeroSinkKey(channels=1, layers=(LAYER,))(model):
        found = record(model, input_ids=ids)
    # With a zero key, the head has no preference left.
    assert found["mass"][0, LAYER, HEAD, 0] == pytest.approx(sum(1 / (t + 1) for t in range(1, 13)) / 12, abs=1e-6)
    assert found["split_error"][0, LAYER] < 1e-5


def test_a_sink_without_its_value_leaves_a_head_that_reads_only_it_empty():
    model, ids = built(read=500.0, share=3.0), prompt(13)
    with ReplaceSinkValue(layers=(LAYER,))(model):
        found = record(model, input_ids=ids)
    bare = record(model, input_ids=ids)
    assert found["mass"][0, LAYER, HEAD, 0] == pytest.approx(bare["mass"][0, LAYER, HEAD, 0], abs=1e-6)
    assert found["value_norm"][0, LAYER, KV_HEAD, 0] == 0
    assert bare["value_norm"][0, LAYER, KV_HEAD, 0] > 1
    assert found["sink_norm_ratio"][0, LAYER, HEAD] == 0


def test_zeroing_a_head_is_zeroing_its_slice_of_the_output_projections_input():
    model, ids = built(read=500.0), prompt(13)
    with ZeroHeads(((LAYER, HEAD),))(model):
        found = run(model, ids, (20, 31))

    def silence(_, args):
        mixed = args[0].clone()
        mixed[..., HEAD * WIDTH : (HEAD + 1) * WIDTH] = 0
        return (mixed,)

    bare = run(model, ids, (20, 31))
    hook = model.model.layers[LAYER].self_attn.o_proj.register_forward_pre_hook(silence)
    expected = run(model, ids, (20, 31))
    hook.remove()
    assert torch.equal(found, expected)
    assert (found - bare).abs().max() > 1e-3


def test_a_head_that_reads_only_the_sink_has_to_look_elsewhere_when_it_is_hidden():
    model, ids = built(read=500.0), prompt(13)
    outputs = {}
    hook = model.model.layers[LAYER].self_attn.o_proj.register_forward_pre_hook(
        lambda _, args: outputs.update(found=args[0][0].unflatten(-1, (4, WIDTH))[:, HEAD])
    )
    values = []
    other = model.model.layers[LAYER].self_attn.v_proj.register_forward_hook(
        lambda _, args, out: values.append(out[0, :, KV_HEAD * WIDTH :])
    )
    with KnockoutTokens(MassiveActivation(), layers=(LAYER,))(model):
        run(model, ids)
    hook.remove()
    other.remove()
    # All keys but the sink's are zero: what is left is the plain mean of the values between it and the token.
    for t in range(1, 13):
        assert torch.allclose(outputs["found"][t], values[0][1 : t + 1].mean(dim=0), atol=1e-5)
    assert torch.allclose(outputs["found"][0], values[0][0], atol=1e-5)
