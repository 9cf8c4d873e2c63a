"""SinkTrack against its restatement in float64, on text and on media that spans name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.methods import OutRo, SinkTrack
from omnisink.methods.base import Method
from omnisink.methods.criteria import Positions
from omnisink.verification.families import FAMILIES
from tests.methods.reference_edits import generated, padded, plain_run, run
from tests.reference_outro import PlainOutRo, prompt, tiny_llama
from tests.verification.family_cells import MARKS, in_turn, reader, same, that_see_or_hear, tiny

pytestmark = MARKS
TOLERANCE = 1e-5
CONTINUATION = (20, 31, 9)
MEDIA = slice(3, 8)


@dataclass
class PlainSinkTrack(PlainOutRo):
    """The method on one sequence; `media` are the columns of media, None is text."""

    every: int = 2
    last_layer: int = 99
    media: slice | None = None
    held: list = field(default_factory=list)

    def _run(self, ids, is_prefill):
        decoder = self.model.model
        hidden = decoder.embed_tokens(ids)[0]
        start = len(self.held[0][0][0]) if self.held else 0
        cos, sin = decoder.rotary_emb(hidden[None], torch.arange(start, start + len(hidden))[None])
        features = None if self.media is None else hidden[self.media]
        for number, layer in enumerate(decoder.layers):
            attention, entered = layer.self_attn, hidden
            normed = layer.input_layernorm(hidden[None])
            split = (1, len(hidden), -1, attention.head_dim)
            query, key, value = (
                p(normed).view(split).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            if is_prefill:
                self.held.append((key[0], value[0]))
            else:
                old = self.held[number]
                self.held[number] = torch.cat([old[0], key[0]], dim=1), torch.cat([old[1], value[0]], dim=1)
            acts = is_prefill and number and number % self.every == 0 and number <= self.last_layer
            output = torch.zeros(len(hidden), query.shape[1], attention.head_dim, dtype=query.dtype)
            for t in range(len(hidden)):
                for h in range(query.shape[1]):
                    k, v = (one[h // 2][: start + t + 1] for one in self.held[number])
                    if acts and t == 0:
                        context = entered if features is None else features
                        k, v = (
                            (context @ p.weight.T).view(len(context), -1, attention.head_dim)[:, h // 2]
                            for p in (attention.k_proj, attention.v_proj)
                        )
                    output[t, h] = (query[0, h, t] @ k.T / attention.head_dim**0.5).softmax(dim=0) @ v
            hidden = hidden + attention.o_proj(output.flatten(1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden[None]))[0]
            if acts and features is not None:
                features = hidden[self.media]
        return self.model.lm_head(decoder.norm(hidden[None]))[0]


def spans(rows, length, columns=MEDIA):
    """Spans of a batch, padded on the left, whose rows have media or have none."""
    marked = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, (row, has) in enumerate(rows):
        if has:
            start = length - row.shape[1]
            marked[b, start + columns.start : start + columns.stop] = True
    return {"image": marked}


WAYS = {
    "text": (SinkTrack(every=2), None, {}),
    "text up to layer 3": (SinkTrack(every=1, last_layer=3), None, {"every": 1, "last_layer": 3}),
    "media": (SinkTrack(every=2), MEDIA, {"media": MEDIA}),
    "media, every layer": (SinkTrack(every=1, features="media"), MEDIA, {"every": 1, "media": MEDIA}),
    "text beside media": (SinkTrack(every=2, features="text"), MEDIA, {}),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_prompt_and_generated_tokens_equal_the_restatement(name, backend):
    model, ids = tiny_llama(backend), prompt(13)
    method, columns, plain = WAYS[name]
    expected = plain_run(PlainSinkTrack(model, **plain), ids, CONTINUATION)
    given = {} if columns is None else {"spans": spans([(ids, True)], 13)}
    for cache in ("dynamic", "static"):
        with method(model, **given):
            found = run(model, ids, CONTINUATION, cache)
        assert (found.double() - expected).abs().max() < TOLERANCE
    bare = run(model, ids, CONTINUATION).double()
    assert (bare - plain_run(PlainSinkTrack(model, every=9), ids, CONTINUATION)).abs().max() < TOLERANCE
    assert (bare - expected).abs().max() > 20 * TOLERANCE


@pytest.mark.parametrize("name", WAYS)
def test_a_left_padded_batch_gives_each_sequence_what_it_gets_alone(name):
    model, (method, columns, _) = tiny_llama(), WAYS[name]
    rows = [(prompt(13, (0, 6)), True), (prompt(9), False), (prompt(11, (), seed=4), True)]
    inputs = padded([row for row, _ in rows])
    given = {} if columns is None else {"spans": spans(rows, 13)}
    with method(model, **given):
        together, tokens = generated(model, inputs)
    bare, _ = generated(model, inputs)
    for b, (row, has) in enumerate(rows):
        given = {} if columns is None else {"spans": spans([(row, has)], row.shape[1])}
        with method(model, **given):
            alone, same_tokens = generated(model, padded([row]))
        assert (together[b] - alone[0]).abs().max() < TOLERANCE
        assert tokens[b].tolist() == same_tokens[0].tolist()
    assert (together[0] - bare[0]).abs().max() > TOLERANCE
    if method.features == "media":
        assert torch.equal(together[1], bare[1])  # A prompt without media keeps every bit.


@pytest.mark.parametrize("name", WAYS)
def test_a_right_padded_prompt_is_what_it_is_without_padding(name):
    model, row = tiny_llama(), prompt(9, (0, 4))
    method, columns, _ = WAYS[name]
    inputs = {k: v[:1] for k, v in padded([row, prompt(12)], "right").items()}
    found = {}
    for length, given in ((12, inputs), (9, {"input_ids": row})):
        marked = torch.zeros(1, length, dtype=torch.bool)
        marked[0, MEDIA] = True
        with torch.inference_mode(), method(model, **({} if columns is None else {"spans": {"image": marked}})):
            found[length] = model(**given).logits[:, :9]
    assert (found[12] - found[9]).abs().max() < TOLERANCE


def test_beams_and_a_period_beyond_the_depth():
    model, rows = tiny_llama(), [prompt(13, (0, 6)), prompt(4)]
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "length_penalty": 0.0}
    with SinkTrack(every=2)(model):
        both = model.generate(**padded(rows), **options)
        for b, row in enumerate(rows):
            assert both[b, -6:].tolist() == model.generate(**padded([row]), **options)[0, -6:].tolist()
    inputs = padded(rows)
    bare, _ = generated(model, inputs)
    for method in (SinkTrack(every=6), SinkTrack(every=2, last_layer=1)):
        with method(model):
            assert torch.equal(generated(model, inputs)[0], bare)


@dataclass(frozen=True)
class Kept(Method):
    """Keep the head outputs."""

    def head_output(self, call, output, context):
        context.record.measured.setdefault("output", {})[call.layer] = output.clone()
        return output


def test_only_the_row_of_the_first_token_changes_in_a_layer():
    model, inputs = tiny_llama(), padded([prompt(13, (0, 6)), prompt(8)])
    made = []
    for method in (None, SinkTrack(every=4)):
        with torch.inference_mode():
            if method is None:
                with Kept()(model) as trace:
                    model(**inputs)
            else:
                with method(model), Kept()(model) as trace:
                    model(**inputs)
        made.append(trace.record.measured["output"][4])
    changed = (made[0] != made[1]).flatten(2).any(dim=2) & inputs["attention_mask"].bool()
    assert changed.nonzero().tolist() == [[0, 0], [1, 5]]


@dataclass(frozen=True)
class OwnKeys(SinkTrack):
    """SinkTrack with the layer's own keys and values, after norm and positions."""

    def keys_and_values(self, call, features, context):
        return call.prompt_keys, call.prompt_values


def test_with_the_layers_own_keys_it_is_the_relaxed_row_of_outro():
    model, ids = tiny_llama(), prompt(13, (0,))
    with OwnKeys(every=3, features="text")(model):
        found = run(model, ids, CONTINUATION)
    with OutRo(rotate=False, relax_layers=(3,), criterion=Positions((0,)))(model):
        expected = run(model, ids, CONTINUATION)
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(("name", "backend"), that_see_or_hear(in_turn()))
def test_families_that_see_or_hear_take_their_media_or_are_refused_by_name(name, backend):
    model, family = tiny(name, backend), FAMILIES[name]
    inputs = family.multimodal_inputs(model)
    with torch.inference_mode():
        bare = reader(model)(**inputs).logits
        try:
            with SinkTrack(every=2, features="media")(reader(model)):
                media = reader(model)(**inputs).logits
        except UnsupportedModelError as error:
            assert type(reader(model)).__name__ in str(error)  # noqa: PT017
            return
        with SinkTrack(every=2, features="text")(reader(model)):
            text = reader(model)(**inputs).logits
    assert torch.isfinite(media).all()
    assert not same(media, bare)
    assert not same(media, text)


@pytest.mark.parametrize("name", ["phi3", "gemma3", "qwen3", "llama4", "smollm3"])
def test_text_families_take_it(name):
    model = tiny(name, "eager")
    inputs = FAMILIES[name].inputs(model, lengths=(9, 6))
    with torch.inference_mode():
        with SinkTrack(every=2)(model):
            place = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
            together = model(**inputs, position_ids=place).logits
            one = {k: v[1:, -6:] for k, v in inputs.items()}
            assert same(together[1, -6:], model(**one).logits[0])
        assert not same(together, model(**inputs, position_ids=place).logits)


def test_models_it_is_not_defined_on_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"SinkTrack is not defined on Deepseek.*k_proj"):
        SinkTrack(every=2)(tiny("deepseek_v3", "eager")).__enter__()
    with pytest.raises(OmnisinkError, match="SinkTrack does not know what learned sink logits"):
        model = tiny("gpt_oss", "eager")
        with SinkTrack(every=2)(model):
            model(**FAMILIES["gpt_oss"].inputs(model, lengths=(6,)))
    with pytest.raises(UnsupportedModelError, match="SinkTrack acts on image or video or audio"):
        model = tiny_llama()
        with SinkTrack(every=2, features="media")(model):
            run(model, prompt(9))


@pytest.mark.parametrize("settings", [{"every": 0}, {"features": "picture"}, {"modalities": ("text",)}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        SinkTrack(**settings)
