"""OutRo with each of the paper's criteria, and with any other, against its plain restatement."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import OmnisinkError, OutRo
from omnisink.methods import FirstToken, MassiveActivation, Method, Positions, RandomTokens, SinkDimension, SinkMethod
from omnisink.methods.controls import OutRoControl
from omnisink.methods.registry import parse_method, settings_of
from omnisink.methods.settings import plain_settings
from omnisink.serving.settings import read_settings
from tests.methods.reference_edits import generated, padded, plain_run, run
from tests.reference_outro import FLEX_WARNING, PlainOutRo, prompt, tiny_llama

TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)
#: The channels of the second criterion mark tokens beside the planted ones, so that the two find different sinks.
CHANNELS = {"channels": (3, 5, 20, 40), "threshold": 1.9}
CRITERIA = {
    "massive activation": (MassiveActivation(), {}),
    "sink dimension": (SinkDimension(**CHANNELS), CHANNELS),
}
CACHES = {
    "dynamic": lambda model: DynamicCache(config=model.config),
    "static": lambda model: StaticCache(config=model.config, max_cache_len=40),
}


def logits_of(model, ids, cache):
    with torch.inference_mode():
        found = [model(input_ids=ids, past_key_values=cache).logits[0]]
        found += [model(input_ids=torch.tensor([[t]]), past_key_values=cache).logits[0] for t in CONTINUATION]
    return torch.cat(found)


@FLEX_WARNING
@pytest.mark.parametrize(
    ("backend", "cache"),
    [
        ("sdpa", "dynamic"),
        ("sdpa", "static"),
        ("eager", "dynamic"),
        ("eager", "static"),
        ("flex_attention", "dynamic"),
    ],
)
@pytest.mark.parametrize("name", CRITERIA)
def test_prompt_and_generated_tokens_equal_the_restatement(name, backend, cache):
    model, ids = tiny_llama(backend), prompt(13, (3, 4, 11))
    criterion, plain_settings = CRITERIA[name]
    plain = PlainOutRo(model, **plain_settings)
    expected = plain_run(plain, ids, CONTINUATION)
    with OutRo(criterion=criterion)(model) as trace:
        found = logits_of(model, ids, CACHES[cache](model))
    assert (found.double() - expected).abs().max() < TOLERANCE
    assert {layer: trace.sinks.positions(layer) for layer in trace.sinks.examined} == plain.sinks
    assert trace.relaxed == plain.relaxed != []
    assert trace.sinks.criterion["name"] == criterion.name


def test_the_two_criteria_find_different_sinks_and_give_different_answers():
    model, ids = tiny_llama(), prompt(13, (3, 4, 11))
    found = {}
    for name, (criterion, _) in CRITERIA.items():
        with OutRo(criterion=criterion)(model) as trace:
            found[name] = run(model, ids), str(trace.sinks.to_json())
    (first, sinks), (second, others) = found.values()
    assert sinks != others
    assert (first - second).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("criterion", [*(c for c, _ in CRITERIA.values()), RandomTokens(MassiveActivation())], ids=str)
def test_a_padded_batch_gives_each_sequence_what_it_gets_alone(criterion, side):
    model, rows = tiny_llama(), [prompt(13, (0, 6)), prompt(13, (2,))]
    if not isinstance(criterion, RandomTokens):  # What is drawn depends on the length.
        rows[1] = prompt(8)
    inputs = padded(rows, side)
    place = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    with OutRo(criterion=criterion)(model) as trace, torch.inference_mode():
        together = model(**inputs, position_ids=place).logits
    assert not (trace.sinks.mask(0) & ~inputs["attention_mask"].bool()).any()
    for b, row in enumerate(rows):
        with OutRo(criterion=criterion)(model):
            alone = run(model, row)
        assert (together[b][inputs["attention_mask"][b].bool()] - alone).abs().max() < TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
def test_sinks_at_the_first_token_and_all_others_make_up_all(side):
    model, rows = tiny_llama(), [prompt(13, (0, 6)), prompt(8), prompt(9, (3,))]
    inputs = padded(rows, side)
    found = []
    for criterion in (FirstToken(MassiveActivation()), FirstToken(MassiveActivation(), others=True)):
        with OutRo(criterion=criterion)(model) as trace, torch.inference_mode():
            model(**inputs)
        mask = trace.sinks.mask(0)
        found.append([mask[b][inputs["attention_mask"][b].bool()].nonzero().flatten().tolist() for b in range(3)])
    first, others = found
    assert first == [[0], [0], []]
    assert others == [[6], [], [3]]


def test_beams_take_the_sinks_of_a_criterion_with_them():
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    method = OutRo(criterion=SinkDimension(**CHANNELS))
    options = {"num_beams": 3, "max_new_tokens": 4, "do_sample": False}
    with method(model):
        together = model.generate(**inputs, **options)
    for b, row in enumerate([prompt(13, (0, 6)), prompt(8)]):
        with method(model):
            alone = model.generate(**padded([row]), **options)
        assert together[b, -4:].tolist() == alone[0, -4:].tolist()


def test_the_default_criterion_given_as_one_is_the_default_to_the_bit():
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    found = []
    for method in (OutRo(), OutRo(criterion=MassiveActivation()), OutRo(criterion=MassiveActivation(100.0, 1000.0))):
        with method(model) as trace:
            found.append((generated(model, inputs), trace.sinks.to_json(), trace.rotated_tokens))
    (first, *facts), *others = found
    for second, *others_facts in others:
        assert all(map(torch.equal, first, second))
        assert facts == others_facts


def test_thresholds_belong_to_the_criterion():
    assert OutRo(min_activation=5.0, median_ratio=7.0).sink_criterion == MassiveActivation(5.0, 7.0)
    assert OutRo(criterion=MassiveActivation(5.0, 7.0)).sink_criterion == MassiveActivation(5.0, 7.0)
    with pytest.raises(ValueError, match="min_activation and median_ratio belong"):
        OutRo(criterion=SinkDimension((3,)), min_activation=5.0)
    with pytest.raises(ValueError, match="min_activation and median_ratio belong"):
        replace(OutRo(median_ratio=7.0), criterion=MassiveActivation())


def test_it_is_a_sink_method_and_looks_at_the_layers_that_detect():
    method = OutRo(detect_layers=[3, 1], criterion=Positions((0,)))
    assert isinstance(method, SinkMethod)
    model = tiny_llama()
    with method(model) as trace:
        run(model, prompt(9))
    assert trace.sinks.examined == [1, 3]
    assert trace.sinks.positions(1) == [0]
    assert "layers" not in plain_settings(method)
    with replace(method, gamma=1.0, detect_layers=(2,))(model) as trace:
        run(model, prompt(9))
    assert trace.sinks.examined == [2]


@pytest.mark.parametrize("wrong", ["sink_dimension", 3, (5,)], ids=str)
@pytest.mark.parametrize("kind", [OutRo, OutRoControl])
def test_what_is_no_criterion_is_refused(kind, wrong):
    with pytest.raises(ValueError, match="criterion must be an object such as"):
        kind(criterion=wrong)


@dataclass(frozen=True)
class Wrong:
    """A criterion that does not mark tokens."""

    answer: object
    name = "wrong"

    def __call__(self, hidden, token_mask):
        return self.answer


@pytest.mark.parametrize(
    "answer", [None, torch.zeros(1, 9), torch.zeros(9, dtype=torch.bool), torch.zeros(2, 9, dtype=torch.bool)], ids=str
)
def test_a_criterion_that_marks_no_tokens_is_refused(answer):
    model = tiny_llama()
    with (
        pytest.raises(OmnisinkError, match="the criterion wrong must mark tokens"),
        OutRo(criterion=Wrong(answer))(model),
    ):
        run(model, prompt(9))


class EveryToken:
    """A criterion of one's own that forgets about padding, and whose marks lie as they like in memory."""

    name = "every_token"

    def __call__(self, hidden, token_mask):
        return torch.ones(*hidden.shape[:2], 2, dtype=torch.bool)[..., 0]


def test_padding_is_never_a_sink_whatever_the_criterion_says():
    model, row = tiny_llama(), prompt(9, (0, 4))
    inputs = {k: v[:1] for k, v in padded([row, prompt(12)]).items()}
    with OutRo(criterion=EveryToken())(model) as trace, torch.inference_mode():
        model(**inputs)
    assert trace.sinks.positions(0) == list(range(3, 12))


def test_it_is_named_as_text_and_kept_in_records():
    name = "outro:gamma=0.5:criterion=sink_dimension(channels=[3,5],threshold=4)"
    method = parse_method(name)
    assert method == OutRo(gamma=0.5, criterion=SinkDimension((3, 5), 4.0))
    assert json.loads(json.dumps(settings_of(method)))["criterion"]["channels"] == [3, 5]
    assert parse_method("outro:rotate:criterion=positions(positions=[0])").relax is False
    assert type(parse_method("outro:random:criterion=positions(positions=[0])")) is OutRoControl
    assert parse_method("outro:criterion=none") == OutRo()
    assert parse_method("outro", OutRo(criterion=Positions((0,)))).criterion == Positions((0,))
    with pytest.raises(OmnisinkError, match="names no criterion"):
        parse_method("outro:criterion=loudness")
    with pytest.raises(OmnisinkError, match="belong to the default criterion"):
        parse_method("outro:min_activation=5:criterion=positions(positions=[0])")


def test_a_server_has_the_default_criterion_only():
    assert read_settings({"gamma": 0.5, "criterion": None}).gamma == 0.5
    with pytest.raises(ValueError, match="criterion"):
        read_settings({"criterion": {"name": "sink_dimension", "channels": [3]}})


def test_a_subclass_that_answers_attention_itself_is_asked_in_every_step():
    @dataclass(frozen=True)
    class Loud(OutRo):
        def attend(self, call, context):
            return torch.ones_like(call.query.transpose(1, 2))

    model = tiny_llama()
    with Loud(gamma=0.0, relax=False)(model):
        ones = run(model, prompt(9), (20,))
    assert (ones[-1] - run(model, prompt(9), (20,))[-1]).abs().max() > TOLERANCE
    assert issubclass(Loud, Method)
