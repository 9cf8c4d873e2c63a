"""Every intervention on a Llama against its restatement, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from omnisink.errors import OmnisinkError
from omnisink.methods.ablation import ReplaceSinkValue, ZeroHeads, ZeroSinkKey
from omnisink.methods.base import Method
from omnisink.methods.controls import OutRoControl
from omnisink.methods.criteria import MassiveActivation, Positions, RandomTokens, SinkDimension
from omnisink.methods.knockout import KnockoutTokens, PruneTokens
from omnisink.methods.measure import Recorder
from omnisink.methods.outro import OutRo
from tests.decoder.test_attachment import fingerprint
from tests.methods.reference_edits import PlainEdit, generated, padded, plain_run, run
from tests.reference_outro import SINK, PlainOutRo, prompt, tiny_llama

#: float32 through six layers against float64, as for OutRo itself.
TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)
VALUES = {
    layer: torch.randn(2, 12, generator=torch.Generator().manual_seed(layer)) for layer in (0, 2, 3)
}  # (K, D) of tiny_llama


@dataclass(frozen=True)
class HeadOutputs(Method):
    """Put all head outputs through a function."""

    function: Callable[[torch.Tensor], torch.Tensor]

    def head_output(self, call, output, context):
        return self.function(output)


EDITS = {
    "zero value": (ReplaceSinkValue(), {"value": lambda layer: torch.zeros(2, 12)}),
    "given values": (ReplaceSinkValue(values=VALUES), {"value": VALUES.get}),
    "one channel": (ZeroSinkKey(channels=1), {"zeroed": 1}),
    "four channels": (ZeroSinkKey(channels=4), {"zeroed": 4}),
    "whole key": (ZeroSinkKey(channels=12), {"zeroed": 12}),
    "heads": (ZeroHeads(((0, 1), (3, 0), (3, 3), (5, 2))), {"heads": ((0, 1), (3, 0), (3, 3), (5, 2))}),
    "hidden": (KnockoutTokens(), {"hide": lambda plain, layer, _: plain.sinks.get(layer, [])}),
    "hidden in one layer": (
        KnockoutTokens(layers=(2,)),
        {"hide": lambda plain, layer, _: plain.sinks[layer] if layer == 2 else []},
    ),
}


def candidates(inputs):
    """Every token but the first three real ones."""
    return inputs["attention_mask"].cumsum(dim=1) > 3


#: Every intervention as the tests below attach it, from a prompt batch.
ALL = {
    **{name: lambda inputs, method=method: method for name, (method, _) in EDITS.items()},
    "random tokens hidden": lambda inputs: KnockoutTokens(RandomTokens(MassiveActivation(), seed=3)),
    "pruned": lambda inputs: PruneTokens(candidates=candidates(inputs), layer=1, keep=0.4),
    "pruned at random": lambda inputs: PruneTokens(
        candidates=candidates(inputs), layer=1, keep=0.4, by="random", criterion=Positions((0,))
    ),
    "outro by channels": lambda inputs: OutRo(criterion=SinkDimension((5,), 5.0), gamma=0.5),
    "outro at known tokens": lambda inputs: OutRo(criterion=Positions((0, 3)), gamma=0.5),
    "control: random direction": lambda inputs: OutRoControl(direction="random", gamma=0.5, relax=False),
    "control: the layer before": lambda inputs: OutRoControl(direction="layer", gamma=0.5, relax=False),
}
SINK_ONLY = [name for name in ALL if name not in ("heads", "pruned", "pruned at random", "outro at known tokens")]


def in_pairs(names, first, second):
    """Give every name two of the four pairs: each value of both once, and all four pairs to every two names."""
    return [(name, first[k], second[(k + i) % 2]) for i, name in enumerate(names) for k in (0, 1)]


@pytest.mark.parametrize(("name", "sinks", "backend"), in_pairs(EDITS, ((0,), (3, 4, 11)), ("sdpa", "eager")), ids=str)
def test_prompt_and_generated_tokens_equal_the_restatement(name, sinks, backend):
    model, ids = tiny_llama(backend), prompt(13, sinks)
    method, plain = EDITS[name]
    expected = plain_run(PlainEdit(model, **plain), ids, CONTINUATION)
    with method(model):
        found = run(model, ids, CONTINUATION)
        static = run(model, ids, CONTINUATION, "static")
    assert (found.double() - expected).abs().max() < TOLERANCE
    assert (static.double() - expected).abs().max() < TOLERANCE
    untouched = run(model, ids, CONTINUATION).double()
    assert (untouched - plain_run(PlainEdit(model), ids, CONTINUATION)).abs().max() < TOLERANCE
    assert (untouched - expected).abs().max() > 20 * TOLERANCE  # or agreeing would prove nothing


@pytest.mark.parametrize(("name", "backend", "cache"), in_pairs(ALL, ("sdpa", "eager"), ("dynamic", "static")))
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name, backend, cache):
    model = tiny_llama(backend)
    cache = {"cache_implementation": cache} if cache == "static" else {}
    rows = [prompt(13, (0, 6)), prompt(8), prompt(13, (), seed=4)]
    inputs = padded(rows)
    bare, _ = generated(model, inputs, **cache)
    if name.startswith("pruned"):
        rows = rows[:2]  # The third has no sink that could rank.
        inputs = padded(rows)
    with ALL[name](inputs)(model):
        together, tokens = generated(model, inputs, **cache)
    assert torch.isfinite(together).all()
    for b, row in enumerate(rows):
        one = padded([row])
        with ALL[name](one)(model):
            alone, same_tokens = generated(model, one, **cache)
        assert (together[b] - alone[0]).abs().max() < TOLERANCE
        assert tokens[b].tolist() == same_tokens[0].tolist()
    assert (together[0] - bare[0]).abs().max() > TOLERANCE
    if name in SINK_ONLY:
        assert torch.equal(together[2], bare[2])  # not a bit, beside prompts with sinks


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", ["left", "right"])
def test_one_padded_prompt_is_what_it_is_without_padding(name, side):
    model, row = tiny_llama(), prompt(9, (0, 4))
    inputs = padded([row, prompt(12)], side)
    inputs = {k: v[:1] for k, v in inputs.items()}
    token_mask = inputs["attention_mask"].bool()
    place = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)  # what a key's channels hold depends on it
    with torch.inference_mode():
        with ALL[name](inputs)(model):
            found = model(**inputs, position_ids=place).logits[token_mask]
        with ALL[name](padded([row]))(model):
            expected = model(input_ids=row).logits[0]
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(("name", "backend"), [(n, ("sdpa", "eager")[i % 2]) for i, n in enumerate(SINK_ONLY)])
def test_without_a_sink_nothing_changes_by_a_bit(name, backend):
    model = tiny_llama(backend, plant=False)
    inputs = padded([prompt(13, (0, 6)), prompt(8)])
    bare, _ = generated(model, inputs)
    with ALL[name](inputs)(model):
        idle, _ = generated(model, inputs)
    assert torch.equal(idle, bare)


@pytest.mark.parametrize("direction", ["sink", "random", "layer"])
def test_without_strength_nothing_changes_by_a_bit(direction):
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    bare, _ = generated(model, inputs)
    with OutRoControl(direction=direction, gamma=0.0, relax=False)(model):
        idle, _ = generated(model, inputs)
    assert torch.equal(idle, bare)


def test_keeping_all_candidates_changes_nothing_by_a_bit():
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    bare, _ = generated(model, inputs)
    with PruneTokens(candidates=candidates(inputs), layer=1, keep=1.0)(model):
        idle, _ = generated(model, inputs)
    assert torch.equal(idle, bare)


@pytest.mark.parametrize("name", ALL)
def test_the_model_is_left_without_a_trace(name):
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    before, marks = generated(model, inputs)[0], fingerprint(model)
    with ALL[name](inputs)(model):
        assert fingerprint(model) != marks
        assert not torch.equal(generated(model, inputs)[0], before)
    assert fingerprint(model) == marks
    assert torch.equal(generated(model, inputs)[0], before)
    with pytest.raises(KeyError), ALL[name](inputs)(model):
        raise KeyError
    assert fingerprint(model) == marks


def test_two_edits_at_once_do_both():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    both = PlainEdit(model, zeroed=2, value=VALUES.get, heads=((1, 2),))
    expected = plain_run(both, ids, CONTINUATION)
    with ZeroSinkKey(channels=2)(model), ReplaceSinkValue(values=VALUES)(model), ZeroHeads(((1, 2),))(model):
        found = run(model, ids, CONTINUATION)
    assert (found.double() - expected).abs().max() < TOLERANCE


@dataclass(frozen=True)
class Raised(Method):
    """Add one to all values."""

    def attention_input(self, call, context):
        return replace(call, value=call.value + 1)

    def head_output(self, call, output, context):
        context.record.measured.setdefault("value", {})[call.layer] = call.value.clone()
        return output


@dataclass(frozen=True)
class Halved(Raised):
    """Halve all values."""

    def attention_input(self, call, context):
        return replace(call, value=call.value / 2)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_calls_are_changed_in_the_order_of_attaching_and_all_see_the_call_that_was_made(backend):
    model, ids = tiny_llama(backend), prompt(13)
    values = {}
    with Recorder()(model) as bare, torch.inference_mode():
        model(input_ids=ids)
    for name, first, second in (("raised first", Raised(), Halved()), ("halved first", Halved(), Raised())):
        with first(model) as one, second(model) as two:
            found = run(model, ids)
        assert torch.equal(one.record.measured["value"][0], two.record.measured["value"][0])
        values[name] = one.record.measured["value"][0]
        with HeadOutputs(lambda output, name=name: output / 2 + (0.5 if name == "raised first" else 1.0))(model):
            expected = run(model, ids)
        assert (found - expected).abs().max() < TOLERANCE
    # (v + 1) / 2 and v / 2 + 1
    assert torch.allclose(values["halved first"] - values["raised first"], torch.tensor(0.5))
    assert bare.record.measured["value_norm"][0].shape == (1, 2, 13)


def test_outro_turns_toward_the_value_another_edit_has_put_in():
    class Edited(PlainOutRo):
        def _attend(self, query, number, *rest):
            for t in self.sinks.get(number, []) if number in VALUES else []:
                self.values[number][:, t] = VALUES[number]
            return super()._attend(query, number, *rest)

    model, ids = tiny_llama(), prompt(13, (0, 6))
    expected = plain_run(Edited(model, gamma=0.5), ids, CONTINUATION)
    for order in ("edit first", "rotation first"):
        methods = [ReplaceSinkValue(values=VALUES), OutRo(gamma=0.5)]
        first, second = methods if order == "edit first" else methods[::-1]
        with first(model), second(model):
            found = run(model, ids, CONTINUATION)
        assert (found.double() - expected).abs().max() < TOLERANCE


def test_hidden_tokens_are_no_part_of_what_is_rotated_after():
    class Hidden(PlainOutRo):
        def _attend(self, query, number, start, *rest):
            hide = PlainEdit(self.model, hide=lambda *_: self.sinks.get(number, []), sinks=self.sinks)
            hide.keys, hide.values = self.keys, self.values
            output = hide._attend(query, number, start, *rest)
            here = self.sinks.get(number, [])
            if start == 0 and here:
                self.bias[number] = torch.stack([self.values[number][:, t] for t in here]).mean(dim=0)
            for t in range(len(output)):
                if number in self.bias and (start or t not in here):
                    for h in range(output.shape[1]):
                        output[t, h] = self._turn(output[t, h], self.bias[number][h // 2])
            return output

    model, ids = tiny_llama(), prompt(13, (0, 6))
    expected = plain_run(Hidden(model, gamma=0.5), ids, CONTINUATION)
    with KnockoutTokens()(model), OutRo(gamma=0.5, relax=False)(model):
        found = run(model, ids, CONTINUATION)
    assert (found.double() - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EDITS)
def test_half_precision_stays_near_the_restatement(name, dtype):
    model, ids = tiny_llama(), prompt(13, (0, 6))
    method, plain = EDITS[name]
    expected = plain_run(PlainEdit(model, **plain), ids)
    model = model.to(dtype)
    with method(model):
        found = run(model, ids)
    assert found.dtype == dtype
    slack = {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype] * float(expected.abs().max()) * 16
    assert (found.double() - expected).abs().max() < slack


REFUSED = {
    "layer outside": (lambda: KnockoutTokens(layers=(2, 9)), r"\[9\].*0 to 5"),
    "head outside": (lambda: ZeroHeads(((1, 4),)), r"layer 1 has heads 0 to 3, not \[4\]"),
    "negative head": (lambda: ZeroHeads(((1, -1),)), r"heads 0 to 3, not \[-1\]"),
    "layer of a head": (lambda: ZeroHeads(((6, 0),)), r"layers \[6\]"),
    "layer of a value": (lambda: ReplaceSinkValue(values={7: torch.zeros(2, 12)}), r"layers \[7\]"),
    "heads of a value": (lambda: ReplaceSinkValue(values={0: torch.zeros(4, 12)}), r"layer 0.*\(4, 12\).*2 heads"),
    "width of a value": (lambda: ReplaceSinkValue(values={0: torch.zeros(2, 1, 9)}), r"\(2, 1, 9\).*width 12"),
    "a value a token": (lambda: ReplaceSinkValue(values={0: torch.zeros(2, 13, 12)}), r"\(2, 13, 12\)"),
    "no value": (lambda: ReplaceSinkValue(values={0: torch.zeros(())}), r"shape \(\)"),
    "ranking layer": (lambda: PruneTokens(layer=6), "layer 6"),
    "candidates": (lambda: PruneTokens(candidates=torch.ones(1, 9).bool(), layer=1), r"\(1, 13\).*\(1, 9\)"),
    "kind of candidates": (lambda: PruneTokens(candidates=torch.ones(1, 13).int(), layer=1), "int32"),
    "no sink to rank": (
        lambda: PruneTokens(
            candidates=torch.ones(1, 13).bool(), layer=1, criterion=MassiveActivation(min_activation=1e9)
        ),
        "no sink at layer 1.*Positions",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_the_model_is_refused_with_the_reason(name):
    method, message = REFUSED[name]
    model = tiny_llama()
    marks = fingerprint(model)
    with pytest.raises(OmnisinkError, match=message), method()(model):
        run(model, prompt(13))
    assert fingerprint(model) == marks


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZeroSinkKey(channels=0), "channels"),
        (lambda: PruneTokens(keep=0.0), "keep"),
        (lambda: PruneTokens(keep=1.1), "keep"),
        (lambda: PruneTokens(keep=float("nan")), "keep"),
        (lambda: PruneTokens(by="attention"), "by"),
        (lambda: Positions((0, -1)), "positions"),
        (lambda: OutRoControl(direction="head"), "direction"),
        (lambda: OutRoControl(direction="layer", gamma=-1.0), "gamma"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_sink_token_was_planted_where_the_tests_say():
    assert prompt(13, (3, 4, 11))[0, [3, 4, 11]].tolist() == [SINK] * 3
