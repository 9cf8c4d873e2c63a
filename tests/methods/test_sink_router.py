"""SinkRouter against its restatement, and its identities: never, always, prompts, bounds, batches and caches."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink import OmnisinkError, OutRo
from omnisink.maths.decomposition import attend
from omnisink.methods import Method, SinkRouter
from omnisink.methods.router_trace import SurrogateWarning
from tests.decoder.test_attachment import fingerprint
from tests.methods.reference_edits import padded, plain_run, run
from tests.methods.reference_router import PlainRouter
from tests.reference_outro import prompt, tiny_llama

#: Tiny random models have no sink with a small value, which is told of.
pytestmark = pytest.mark.filterwarnings("ignore::omnisink.methods.router_trace.SurrogateWarning")

TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)


@dataclass(frozen=True)
class Watch(Method):
    """Keep the calls and the head outputs of each layer in the order of the passes."""

    calls: dict = field(default_factory=dict, hash=False, compare=False)

    def head_output(self, call, output, context):
        self.calls.setdefault(call.layer, []).append((call, output))
        return output


def watched(method, model, ids, continuation=CONTINUATION):
    watch = Watch()
    with method(model) as trace, watch(model):
        logits = run(model, ids, continuation)
    return logits, watch.calls, trace


def restated(model, ids, **settings):
    """Return a restatement that routes some heads, with its logits: no score is so near that rounding decides."""
    plain = PlainRouter(model, threshold=lambda length: 2.0, **settings)
    plain_run(plain, ids, CONTINUATION)
    scores = sorted(score for step in plain.scores for score in step.values())
    inner = range(len(scores) // 4, 3 * len(scores) // 4)
    for gap in sorted(inner, key=lambda i: scores[i] - scores[i + 1]):
        threshold = (scores[gap] + scores[gap + 1]) / 2
        plain = PlainRouter(model, threshold=lambda length, chosen=threshold: chosen, **settings)
        expected = plain_run(plain, ids, CONTINUATION)
        if plain.clearance() > 1e-4:
            return plain, expected
    pytest.fail("every threshold lies on a score")


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("surrogate", ["zero", "value"])
@pytest.mark.parametrize(("anchor", "sinks"), [("first", (0,)), ("first", (3, 4)), ("sinks", (3, 7)), ("sinks", ())])
def test_prompt_and_generated_tokens_equal_the_restatement(backend, surrogate, anchor, sinks):
    model, ids = tiny_llama(backend), prompt(13, sinks)
    plain, expected = restated(model, ids, surrogate=surrogate, anchor=anchor)
    with SinkRouter(plain.threshold(13), surrogate, anchor=anchor)(model) as trace:
        found = run(model, ids, CONTINUATION)
        static = run(model, ids, CONTINUATION, "static")
    assert (found.double() - expected).abs().max() < TOLERANCE
    assert (static.double() - expected).abs().max() < TOLERANCE
    assert (run(model, ids, CONTINUATION).double() - expected)[13:].abs().max() > 20 * TOLERANCE
    routed = [sum(step.values()) for step in plain.routed]
    assert trace.skip_ratio == pytest.approx(sum(routed) / (3 * 12))
    for layer in range(2, 6):
        own = [step[layer, g] for step in plain.scores for g in (0, 1)]
        assert trace.scores[layer] == pytest.approx(sum(own) / len(own), abs=1e-5)
        assert trace.skip_ratios[layer] == pytest.approx(
            sum(step[layer, g] for step in plain.routed for g in (0, 1)) / 6
        )


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_threshold_of_one_changes_no_bit(backend, cache):
    model, ids = tiny_llama(backend), prompt(13, (0, 6))
    before = fingerprint(model)
    plain = run(model, ids, CONTINUATION, cache)
    for threshold in (1, 1.5, ((4, 1.0), (20, 1.2))):
        with SinkRouter(threshold)(model) as trace:
            assert torch.equal(run(model, ids, CONTINUATION, cache), plain)
        assert trace.skip_ratio == 0.0
    assert fingerprint(model) == before


@pytest.mark.parametrize("surrogate", ["zero", "value"])
def test_a_prompt_is_processed_as_without_the_method(surrogate):
    model, ids = tiny_llama(), prompt(13, (0, 6))
    plain = run(model, ids, CONTINUATION)
    with SinkRouter(-1.01, surrogate)(model):
        found = run(model, ids, CONTINUATION)
        assert torch.equal(run(model, ids), plain[:13])  # without a cache every pass is a prompt
    assert torch.equal(found[:13], plain[:13])
    assert (found[13:] - plain[13:]).abs().max() > 1e-3


@pytest.mark.parametrize("surrogate", ["zero", "value"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_below_every_cosine_all_heads_give_the_surrogate_and_the_first_layers_attend(surrogate, backend):
    model, ids = tiny_llama(backend), prompt(13, (0, 6))
    _, plain, _ = watched(SinkRouter(1), model, ids)
    _, calls, trace = watched(SinkRouter(-1.01, surrogate), model, ids)
    for layer, seen in calls.items():
        for step, (call, output) in enumerate(seen[1:], 1):
            if layer < 2:
                assert torch.equal(output, plain[layer][step][1])
            elif surrogate == "zero":
                assert torch.count_nonzero(output) == 0
            else:
                assert torch.equal(output, call.value[:, :, 0].repeat_interleave(2, dim=1)[:, None])
            assert call.key.shape[2] == 13 + step  # nothing leaves the cache
    assert trace.skip_ratios == dict.fromkeys(range(2, 6), 1.0)
    assert trace.skip_ratio == pytest.approx(8 / 12)


@pytest.mark.parametrize("surrogate", ["zero", "value"])
def test_the_error_of_a_routed_head_is_bounded_by_the_attention_on_the_sink(surrogate):
    model, ids = tiny_llama(), prompt(13, (0,))
    _, calls, _ = watched(SinkRouter(1), model, ids)
    for seen in calls.values():
        for call, output in seen[1:]:
            first = torch.zeros(1, 1, call.key.shape[2], 1)
            first[:, :, 0] = 1
            open_to_all = torch.ones(1, 1, 1, call.key.shape[2], dtype=torch.bool)
            on_sink = attend(call.query, call.key, first, lambda rows, seen=open_to_all: seen)[..., 0, 0]
            lengths = call.value.norm(dim=-1).repeat_interleave(2, dim=1)
            largest = lengths[:, :, 1:].amax(dim=-1)
            if surrogate == "zero":
                error, bound = output[:, 0].norm(dim=-1), lengths[:, :, 0] + (1 - on_sink) * largest
            else:
                value = call.value[:, :, 0].repeat_interleave(2, dim=1)
                error = (output[:, 0] - value).norm(dim=-1)
                bound = (1 - on_sink) * (lengths[:, :, 0] + largest)
            assert bool((error <= bound + 1e-6).all())


def test_the_share_that_is_routed_does_not_grow_with_the_threshold():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    shares = []
    for threshold in (-1.01, -0.4, -0.2, 0.0, 0.2, 0.4, 1):
        with SinkRouter(threshold)(model) as trace:
            run(model, ids, (20,))
        shares.append(trace.skip_ratio)
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) > 3


def steps_of(model, inputs, tokens, side, cache=None):
    """Logits of steps after a padded batch, (B, n, vocabulary); padding on the right stays before the steps."""
    mask = inputs["attention_mask"]
    place = (mask.cumsum(dim=1) - 1).clamp(min=0)
    kept = DynamicCache(config=model.config) if cache is None else StaticCache(config=model.config, max_cache_len=32)
    found = []
    with torch.inference_mode():
        model(**inputs, position_ids=place, past_key_values=kept)
        for n, token in enumerate(tokens):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            at = inputs["attention_mask"].sum(dim=1)[:, None] + n
            step = torch.full((len(mask), 1), token)
            found.append(model(input_ids=step, attention_mask=mask, position_ids=at, past_key_values=kept).logits)
    return torch.cat(found, dim=1)


CURVE = ((8, -0.2), (12, 0.1), (16, -0.1))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("backend", "cache"), [("sdpa", None), ("eager", None), ("sdpa", "static"), ("eager", "static")]
)
@pytest.mark.parametrize(
    "settings", [{"threshold": 0.02}, {"threshold": CURVE, "surrogate": "value", "anchor": "sinks"}]
)
def test_a_padded_batch_gives_each_sequence_what_it_gets_alone(side, backend, cache, settings):
    model = tiny_llama(backend)
    rows = [prompt(13, (0, 6)), prompt(8), prompt(10, (2,), seed=4)]
    method = SinkRouter(**settings)
    with method(model) as trace:
        together = steps_of(model, padded(rows, side), CONTINUATION, side, cache)
        shares = trace.skip_ratios_of(None)
    for b, row in enumerate(rows):
        with method(model) as trace:
            alone = steps_of(model, padded([row]), CONTINUATION, side, cache)
        assert (together[b] - alone[0]).abs().max() < TOLERANCE
        assert trace.skip_ratio == pytest.approx(shares[b])
        curve = method.curve
        plain = PlainRouter(
            model,
            threshold=(lambda length: 0.02) if curve is None else curve.at,
            surrogate=method.surrogate,
            anchor=method.anchor,
        )
        expected = plain_run(plain, row, CONTINUATION)[-3:]
        assert plain.clearance() > 1e-5
        assert (together[b].double() - expected).abs().max() < TOLERANCE
        assert trace.skip_ratio == pytest.approx(sum(sum(step.values()) for step in plain.routed) / 36)


def test_anchors_follow_beams_and_repeated_sequences():
    model = tiny_llama()
    rows = torch.cat([prompt(9, (0,)), prompt(9, (3,), seed=5)])
    tokens = torch.tensor([[20], [31]])
    method = SinkRouter(0.02, "value", anchor="sinks")

    def after(ids, change, token):
        cache = DynamicCache(config=model.config)
        with torch.inference_mode(), method(model) as trace:
            model(input_ids=ids, past_key_values=cache)
            change(cache)
            logits = model(input_ids=token, past_key_values=cache).logits
        return logits, trace

    swapped, trace = after(rows, lambda cache: cache.reorder_cache(torch.tensor([1, 0])), tokens)
    expected, other = after(rows.flip(0), lambda cache: None, tokens)
    assert (swapped - expected).abs().max() < TOLERANCE
    assert trace.skip_ratios_of(None) == other.skip_ratios_of(None)[::-1]
    repeated, _ = after(rows, lambda cache: cache.batch_repeat_interleave(2), tokens.repeat_interleave(2, dim=0))
    plain, _ = after(rows, lambda cache: None, tokens)
    assert (repeated - plain.repeat_interleave(2, dim=0)).abs().max() < TOLERANCE


@pytest.mark.parametrize("first", ["router", "outro"])
@pytest.mark.parametrize("surrogate", ["zero", "value"])
def test_outro_acts_on_what_the_router_answers_in_either_order(first, surrogate):
    model, ids = tiny_llama(), prompt(13, (0, 6))
    plain, expected = restated(model, ids, rotate=True, relax=True, gamma=0.5, surrogate=surrogate)
    router, outro = SinkRouter(plain.threshold(13), surrogate), OutRo(gamma=0.5)
    outer, inner = (router, outro) if first == "router" else (outro, router)
    with outer(model) as one, inner(model) as two:
        found = run(model, ids, CONTINUATION)
        static = run(model, ids, CONTINUATION, "static")
    assert (found.double() - expected).abs().max() < TOLERANCE
    assert (static.double() - expected).abs().max() < TOLERANCE
    assert (one if first == "router" else two).skip_ratio > 0
    assert (two if first == "router" else one).rotated_tokens


def test_a_pass_of_several_tokens_attends_with_all_heads():
    model, ids = tiny_llama(), prompt(13, (0, 6))

    def logits(method):
        cache = DynamicCache(config=model.config)
        with torch.inference_mode(), method(model) as trace:
            model(input_ids=ids, past_key_values=cache)
            found = model(input_ids=torch.tensor([[20, 31]]), past_key_values=cache).logits
        return found, trace

    found, trace = logits(SinkRouter(-1.01))
    assert torch.equal(found, logits(SinkRouter(1))[0])
    assert trace.skip_ratio is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype):
    model, ids = tiny_llama(), prompt(13, (0, 6))
    threshold = restated(model, ids)[0].threshold(13)
    with SinkRouter(threshold)(model):
        expected = run(model, ids, CONTINUATION)
    with SinkRouter(threshold)(model.to(dtype)):
        found = run(model, ids, CONTINUATION).float()
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_the_length_of_the_anchors_value_is_measured_and_warned_of():
    model, ids = tiny_llama(), prompt(13, (0,))
    _, calls, trace = watched(SinkRouter(0.5), model, ids)
    for layer, ratio in trace.value_ratios.items():
        lengths = calls[layer][0][0].value[0].double().norm(dim=-1)
        assert ratio == pytest.approx(float((lengths[:, 0] / lengths.median(dim=1).values).mean()), rel=1e-5)
    assert list(trace.value_ratios) == [2, 3, 4, 5]
    long = prompt(13, ())
    for method, warns in ((SinkRouter(0.5), True), (SinkRouter(0.5, "value"), False), (SinkRouter(1), False)):
        if warns:
            with pytest.warns(SurrogateWarning, match="surrogate='value'"), method(model):
                run(model, long)
        else:
            with method(model):
                run(model, long)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"threshold": float("nan")}, "finite"),
        ({"threshold": "high"}, "threshold must be a number, or pairs"),
        ({"threshold": ((100, 0.5), (100, 0.6))}, "each once"),
        ({"threshold": ((-1, 0.5),)}, "above 0"),
        ({"threshold": ()}, "needs lengths"),
        ({"threshold": ((1, 0.5), (2, 0.5), (3, 0.5)), "fit": "cubic"}, "four lengths"),
        ({"fit": "cubic"}, "belongs to a curve"),
        ({"surrogate": "mean"}, "surrogate must be one of"),
        ({"anchor": "last"}, "anchor must be one of"),
        ({"criterion": print}, "belongs to anchor"),
        ({"skip_layers": (0.5,)}, "skip_layers"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings, what):
    with pytest.raises(ValueError, match=what):
        SinkRouter(**settings)


def test_layers_that_a_model_does_not_have_are_refused():
    model = tiny_llama()
    with pytest.raises(OmnisinkError, match="skip_layers names"), SinkRouter(skip_layers=(0, 9))(model):
        pass
    with pytest.raises(OmnisinkError, match="nothing is left to route"), SinkRouter(skip_layers=range(6))(model):
        pass
    with pytest.raises(OmnisinkError, match="nothing is left to route"), SinkRouter()(tiny_llama(num_hidden_layers=2)):
        pass
