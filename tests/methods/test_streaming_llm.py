"""StreamingLLM against its restatement, as a knockout and as a cache that drops tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.positions import read_rotations
from omnisink.decoder.streaming import StreamingCache, StreamingLayer, full_attention_layers
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.methods import KnockoutTokens, OutRo, StreamingLLM
from omnisink.methods.criteria import Positions
from omnisink.verification.families import FAMILIES
from tests.methods.reference_edits import generated, padded, plain_run, run
from tests.methods.reference_streaming import PlainStreaming
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import LENGTHS, MARKS, reader, tiny

pytestmark = MARKS
TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9, 44, 20, 12)
SIZES = {"n_sink": 2, "window": 4}
WAYS = {
    "knockout": (StreamingLLM(**SIZES), {}),
    "knockout, shifted": (StreamingLLM(**SIZES, shift=True), {"shift": True}),
    "cache": (StreamingLLM(**SIZES, evict=True), {}),
    "cache, shifted": (StreamingLLM(**SIZES, evict=True, shift=True), {"shift": True}),
    "no sinks": (StreamingLLM(n_sink=0, window=4), {"n_sink": 0}),
    "no sinks, cache": (StreamingLLM(n_sink=0, window=4, evict=True, shift=True), {"n_sink": 0, "shift": True}),
    "prompt too": (StreamingLLM(**SIZES, prefill=True), {"whole": False}),
    "prompt too, cache": (StreamingLLM(**SIZES, prefill=True, evict=True), {"whole": False}),
}
#: Each way with both backends in turn.
CELLS = [(name, backend) for name in WAYS for backend in ("sdpa", "eager")]


def cached_bytes(cache):
    """Bytes of memory behind the keys and values of a cache."""
    return sum(t.untyped_storage().nbytes() for layer in cache.layers for t in (layer.keys, layer.values))


@pytest.mark.parametrize(("name", "backend"), CELLS)
def test_prompt_and_generated_tokens_equal_the_restatement(name, backend):
    model, ids = tiny_llama(backend), prompt(13)
    method, plain = WAYS[name]
    expected = plain_run(PlainStreaming(model, **{**SIZES, **plain}), ids, CONTINUATION)
    with method(model):
        found = run(model, ids, CONTINUATION)
        static = None if method.evict else run(model, ids, CONTINUATION, "static")
    assert (found.double() - expected).abs().max() < TOLERANCE
    assert static is None or (static.double() - expected).abs().max() < TOLERANCE
    bare = run(model, ids, CONTINUATION).double()
    assert (bare - plain_run(PlainStreaming(model, n_sink=40), ids, CONTINUATION)).abs().max() < TOLERANCE
    assert (bare - expected).abs().max() > 20 * TOLERANCE  # or agreeing would prove nothing


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name, backend):
    model, method = tiny_llama(backend), WAYS[name][0]
    rows = [prompt(13, (0, 6)), prompt(3), prompt(7, (), seed=4)]  # more than is kept, less, and in between
    with method(model):
        together, tokens = generated(model, padded(rows))
        alone = [generated(model, padded([row])) for row in rows]
    for b, (one, same_tokens) in enumerate(alone):
        assert (together[b] - one[0]).abs().max() < TOLERANCE
        assert tokens[b].tolist() == same_tokens[0].tolist()


@pytest.mark.parametrize("name", [name for name in WAYS if "cache" not in name])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_right_padded_prompt_has_its_own_first_and_last_tokens(name, cache):
    model, row = tiny_llama(), prompt(9, (0, 4))
    method = WAYS[name][0]
    both = padded([row, prompt(12)], "right")
    made = {"dynamic": DynamicCache, "static": lambda config: StaticCache(config=config, max_cache_len=40)}[cache]

    def logits(ids, mask, start):
        held, found = made(config=model.config), []
        for k in range(4):
            where = (mask.cumsum(1) - 1).clamp(min=0) if k == 0 else start + k - 1
            found.append(model(input_ids=ids, attention_mask=mask, position_ids=where, past_key_values=held).logits)
            mask = torch.cat([mask, torch.ones(len(mask), 1, dtype=torch.long)], dim=1)
            ids = torch.full((len(mask), 1), 20 + k)
        return torch.cat([found[0][:1, :9], *[one[:1] for one in found[1:]]], dim=1)

    with torch.inference_mode(), method(model):
        found = logits(both["input_ids"], both["attention_mask"], torch.tensor([[9], [12]]))
        expected = logits(row, torch.ones_like(row), torch.tensor([[9]]))
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("evict", [False, True])
@pytest.mark.parametrize("shift", [False, True])
def test_a_window_over_everything_changes_no_bit(evict, shift):
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    bare, _ = generated(model, inputs)
    with StreamingLLM(n_sink=4, window=64, evict=evict, shift=shift)(model):
        assert torch.equal(generated(model, inputs)[0], bare)
    if not evict:
        bare, _ = generated(model, inputs, cache_implementation="static")
        with StreamingLLM(n_sink=4, window=64, shift=shift)(model):
            assert torch.equal(generated(model, inputs, cache_implementation="static")[0], bare)


def test_a_prompt_in_one_pass_equals_its_tokens_one_by_one():
    model, ids = tiny_llama(), prompt(15, (0, 4))
    with StreamingLLM(**SIZES, prefill=True)(model):
        whole = run(model, ids)
    with StreamingLLM(**SIZES)(model):
        steps = run(model, ids[:, :1], ids[0, 1:].tolist())
    assert (whole - steps).abs().max() < TOLERANCE


@pytest.mark.parametrize("shift", [False, True])
def test_several_tokens_at_once_see_the_same_as_a_knockout_and_in_the_cache(shift):
    model, ids = tiny_llama(), prompt(13)
    chunks = [ids, prompt(3, (), 5), prompt(6, (), 6), prompt(1, (), 7)]

    def logits(method):
        cache = DynamicCache(config=model.config)
        with method(model), torch.inference_mode():
            return torch.cat([model(input_ids=one, past_key_values=cache).logits[0] for one in chunks])

    plain = PlainStreaming(model, **SIZES, shift=shift)
    expected = torch.cat([plain._feed(one) for one in chunks])
    for evict in (False, True):
        assert (logits(StreamingLLM(**SIZES, shift=shift, evict=evict)).double() - expected).abs().max() < TOLERANCE


def test_memory_falls_and_stays():
    model, ids = tiny_llama(), prompt(200)
    held = {}
    for evict in (False, True):
        cache = DynamicCache(config=model.config)
        with StreamingLLM(n_sink=4, window=16, evict=evict)(model), torch.inference_mode():
            model(input_ids=ids, past_key_values=cache)
            sizes = [cached_bytes(cache)]
            for token in range(20, 60):
                model(input_ids=torch.tensor([[token]]), past_key_values=cache)
                sizes.append(cached_bytes(cache))
        assert cache.get_seq_length() == 240
        held[evict] = sizes
    one = 6 * 2 * 2 * 12 * 4  # layers, keys and values, heads, width, bytes
    assert held[False][0] == 200 * one
    assert held[False][-1] == 240 * one
    assert set(held[True]) == {20 * one}


def test_the_cache_by_itself_drops_tokens_and_gives_what_the_method_gives():
    model, ids = tiny_llama(), prompt(13)
    cache = StreamingCache(model.config, **SIZES)
    with torch.inference_mode():
        found = [model(input_ids=ids, past_key_values=cache).logits[0]]
        found += [model(input_ids=torch.tensor([[t]]), past_key_values=cache).logits[0] for t in CONTINUATION]
    with StreamingLLM(**SIZES)(model):
        expected = run(model, ids, CONTINUATION)
    assert (torch.cat(found) - expected).abs().max() < TOLERANCE
    assert all(layer.keys.shape[2] == 6 for layer in cache.layers)
    cache.reset()
    assert cache.get_seq_length() == 0
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids, past_key_values=cache).logits[0], found[0])
    with pytest.raises(OmnisinkError, match="cannot be cropped"):
        cache.crop(-2)


@pytest.mark.parametrize("shift", [False, True])
def test_beams_are_what_they_are_with_a_knockout(shift):
    model = tiny_llama()
    inputs = padded([prompt(13, (0, 6)), prompt(4)])
    made = []
    for evict in (False, True):
        with StreamingLLM(**SIZES, shift=shift, evict=evict)(model):
            made.append(
                model.generate(
                    **inputs, num_beams=3, max_new_tokens=8, do_sample=False, length_penalty=0.0,
                    return_dict_in_generate=True, output_scores=True,
                )
            )  # fmt: skip
    assert made[0].sequences.tolist() == made[1].sequences.tolist()
    assert (made[0].sequences_scores - made[1].sequences_scores).abs().max() < TOLERANCE
    with StreamingLLM(**SIZES, shift=shift)(model):
        one = model.generate(**padded([prompt(4)]), num_beams=3, max_new_tokens=8, do_sample=False, length_penalty=0.0)
    assert made[1].sequences[1, -8:].tolist() == one[0, -8:].tolist()


def test_sequences_can_be_chosen_and_repeated():
    model = tiny_llama()
    inputs = padded([prompt(13), prompt(4)])

    def logits(order, change):
        cache = DynamicCache(config=model.config)
        mask = inputs["attention_mask"]
        with StreamingLLM(**SIZES, shift=True, evict=True)(model), torch.inference_mode():
            model(**inputs, past_key_values=cache)
            for k in range(3):
                if k == 1:
                    change(cache)
                rows = len(order) if k else 2
                where = torch.cat([mask, torch.ones(2, k + 1, dtype=torch.long)], dim=1)
                where = where if k == 0 else where[order]
                ids = torch.full((rows, 1), 20 + k)
                found = model(input_ids=ids, attention_mask=where, past_key_values=cache).logits
        return found

    expected = logits([0, 1], lambda cache: None)
    chosen = logits([1], lambda cache: cache.batch_select_indices(torch.tensor([1])))
    doubled = logits([0, 0, 1, 1], lambda cache: cache.batch_repeat_interleave(2))
    assert (chosen - expected[1:]).abs().max() < TOLERANCE
    assert (doubled - expected.repeat_interleave(2, dim=0)).abs().max() < TOLERANCE


def test_outro_acts_on_what_the_kept_tokens_gave():
    model, ids = tiny_llama(), prompt(13, (0, 6))
    found = []
    for evict in (False, True):
        with StreamingLLM(**SIZES, evict=evict)(model), OutRo(gamma=0.5)(model) as trace:
            found.append(run(model, ids, CONTINUATION))
        assert trace.rotated_tokens
    assert (found[0] - found[1]).abs().max() < TOLERANCE


@pytest.mark.parametrize("method", [KnockoutTokens(Positions((0,)), layers=(1,))])
def test_methods_that_need_every_key_of_the_prompt_refuse_a_cache_that_dropped_some(method):
    model, ids = tiny_llama(), prompt(5)
    with StreamingLLM(n_sink=2, window=8, evict=True)(model), method(model):
        run(model, ids, CONTINUATION[:5])  # all ten are still there
        with pytest.raises(OmnisinkError, match="dropped tokens between the first and the last"):
            run(model, ids, CONTINUATION)


@pytest.mark.parametrize("name", FAMILIES)
def test_in_every_family_the_cache_gives_what_the_knockout_gives(name):
    family = FAMILIES[name]
    try:
        model = tiny(name, "eager")
        anatomy = read_anatomy(reader(model))
    except OmnisinkError:
        pytest.skip("the family is refused by every method")
    if not full_attention_layers(anatomy):
        with pytest.raises(UnsupportedModelError, match="every layer has a window"):
            StreamingLLM().check(anatomy)
        return
    inputs = family.inputs(model, lengths=LENGTHS)
    made = {}
    for evict in (False, True):
        with StreamingLLM(n_sink=2, window=5, evict=evict)(reader(model)):
            made[evict] = _steps(model, inputs)
    assert (made[True] - made[False]).abs().max() < 5e-5
    with StreamingLLM(n_sink=2, window=500)(reader(model)):
        assert (made[True] - _steps(model, inputs)).abs().max() > 1e-4


def _steps(model, inputs):
    made = reader(model).generate(
        **inputs, min_new_tokens=4, max_new_tokens=4, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return torch.stack(made.logits, dim=1)


#: How keys are rotated: in neighbouring pairs or halves, and over how many channels; None: at some layers not at all.
ROTATIONS = {
    "llama": {(False, 8)},
    "glm4": {(True, 4)},
    "smollm3": {(False, 8), None},
    "llama4": {(True, 8), None},
    "qwen3_next": {(False, 2)},
    "gemma3": {(False, 8)},
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_the_rotation_of_keys_is_read_off_the_model(name):
    found = read_rotations(read_anatomy(reader(tiny(name, "eager"))), "a test").values()
    assert {None if r is None else (r.interleaved, len(r.inverse_frequencies)) for r in found} == ROTATIONS[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("qwen2_5_omni_thinker", "three parts"), ("deepseek_v3", "compressed form")],
)
def test_families_whose_keys_cannot_be_turned_are_refused_by_name(name, reason):
    model = reader(tiny(name, "eager"))
    with pytest.raises(UnsupportedModelError, match=f"{type(model).__name__}.*{reason}"):
        StreamingLLM(shift=True).check(read_anatomy(model))


def test_frequencies_that_change_with_the_prompt_are_refused():
    model = tiny_llama(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    with (
        pytest.raises(UnsupportedModelError, match=r"dynamic.*change with the length"),
        StreamingLLM(shift=True)(model),
    ):
        pass


def test_a_cache_of_fixed_size_cannot_drop_tokens():
    model = tiny_llama()
    with pytest.raises(OmnisinkError, match="StaticCache.*cannot drop"), StreamingLLM(evict=True)(model):
        run(model, prompt(9), (20,), "static")


def test_a_cache_that_keeps_layers_with_a_window_as_if_they_had_none_cannot_drop_tokens():
    model = tiny("gemma3", "eager")
    with pytest.raises(OmnisinkError, match="shared with layers that have a window"), StreamingLLM(evict=True)(model):
        model(input_ids=prompt(9, (), vocab=32), past_key_values=DynamicCache())


def test_padding_on_the_right_cannot_be_dropped():
    model = tiny_llama()
    inputs = padded([prompt(13), prompt(8)], "right")
    with pytest.raises(OmnisinkError, match="padding on the left"), StreamingLLM(evict=True)(model):
        model(**inputs, past_key_values=DynamicCache(config=model.config))


@pytest.mark.parametrize(
    "settings",
    [{"n_sink": -1}, {"window": 0}, {"prefill": True, "shift": True}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="n_sink|prefill"):
        StreamingLLM(**settings)


def test_layers_of_the_cache_say_how_much_they_hold():
    layer = StreamingLayer(2, 3)
    for new in (4, 1, 1, 5):
        length, offset = layer.get_mask_sizes(new)
        keys, values = layer.update(torch.zeros(1, 1, new, 2), torch.zeros(1, 1, new, 2))
        assert keys.shape[2] == values.shape[2] == length
        assert offset + length == layer.get_seq_length()
    assert layer.get_max_length() == 5
