"""Shares of sets of tokens in the calls of real architectures, against the maps that the same model has in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.maths.sets import complement, difference, give, reweigh
from omnisink.methods.base import Method
from omnisink.methods.sets import add_to_rows, blocks_of, last_rows, marks_over_keys, received_from, shares_of
from omnisink.verification.families import FAMILIES
from tests.reference_outro import FLEX_WARNING, prompt, tiny_llama

pytestmark = pytest.mark.usefixtures("flex_attention_uncompiled")

TOLERANCE = 2e-5
CONTINUATION = (20, 31, 29, 44)
LENGTHS = (21, 13)
#: A window that moves on, a soft cap, both kinds of layers, learned sinks, a latent of its own for keys and values.
KINDS = ["llama", "mistral_window", "gemma2", "gemma3", "gemma4", "gpt_oss", "llama4", "deepseek_v3"]
#: Those whose window is shorter than the padded prompts.
WINDOWED = ("mistral_window", "gemma3")


@dataclass(frozen=True)
class Watching(Method):
    """Note what `look` returns at every layer of every pass, and change nothing."""

    look: object = field(default=None, compare=False)
    found: list = field(default_factory=list, compare=False)

    def begin(self, context):
        self.found.append({})

    def head_output(self, call, output, context):
        self.found[-1][call.layer] = self.look(call, context, output)
        return output


def sequences(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(20, 90, (1, n), generator=generator) for n in lengths]


def batch_of(rows, side):
    longest = max(r.shape[1] for r in rows)
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
    for b, row in enumerate(rows):
        start = longest - row.shape[1] if side == "left" else 0
        ids[b, start : start + row.shape[1]], mask[b, start : start + row.shape[1]] = row, 1
    return ids, mask


def run(model, ids, mask, cache, steps=CONTINUATION):
    """A prefill and a token after the other, with the positions that padding leaves."""
    made = (
        StaticCache(config=model.config, max_cache_len=40) if cache == "static" else DynamicCache(config=model.config)
    )
    with torch.inference_mode():
        place = (mask.cumsum(dim=1) - 1).clamp(min=0)
        model(input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=made)
        for token in steps:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            place = mask.sum(dim=1, keepdim=True) - 1
            model(
                input_ids=torch.full((len(ids), 1), token),
                attention_mask=mask,
                position_ids=place,
                past_key_values=made,
            )


def reference(family, row):
    """Maps and values of one whole sequence in float64, without padding or a cache, by layer."""
    model = FAMILIES[family].build("eager").double()
    if family == "gpt_oss":
        model.set_experts_implementation("eager")  # The other has no float64.
    whole = torch.cat([row, torch.tensor([CONTINUATION])], dim=1)
    watching = Watching(lambda call, context, output: (call.value, output))
    with torch.inference_mode(), watching(model):
        maps = model(input_ids=whole, output_attentions=True, use_cache=False).attentions
    groups = {layer: maps[layer].shape[1] // value.shape[1] for layer, (value, _) in watching.found[0].items()}
    return {
        layer: (maps[layer][0], value[0].repeat_interleave(groups[layer], dim=0))
        for layer, (value, _) in watching.found[0].items()
    }


def prompt_marks(mask):
    """Two sets over real tokens: every third, and the next after each; counted from the first real token."""
    place = mask.cumsum(dim=1) - 1
    return torch.stack([(place % 3 == x) & (mask == 1) for x in range(2)], dim=1)


def compared(shares, maps, value, marks, rows):
    """Compare shares (H, n, X, D') of one sequence with maps (H, S, T) and sets (X, T)."""
    output, mass, seen = shares
    weights = maps[:, rows, : marks.shape[-1]]
    expected = torch.einsum("hst,xt,htd->hsxd", weights, marks.double(), value[:, : marks.shape[-1]])
    assert (output - expected).abs().max() < TOLERANCE * max(1.0, float(value.abs().max()))
    assert (mass - torch.einsum("hst,xt->hsx", weights, marks.double())).abs().max() < TOLERANCE
    assert (seen - weights.sum(dim=-1)).abs().max() < TOLERANCE


@FLEX_WARNING
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize(
    ("family", "backend"), [(one, backend) for one in KINDS for backend in FAMILIES[one].backends]
)
def test_shares_in_prefill_and_decode_are_those_of_the_maps(family, backend, cache, side):
    rows = sequences()
    ids, mask = batch_of(rows, side)
    model = FAMILIES[family].build(backend)
    marks = prompt_marks(mask)

    def look(call, context, output):
        found = shares_of(call, context, marks, later=1)
        # All sets together are the head output, whatever backend made it.
        whole = shares_of(call, context, complement(marks), later=1).output.sum(dim=-2).transpose(1, 2)
        real = torch.ones(output.shape[:2]).bool() if context.now.token_mask is None else context.now.token_mask
        assert ((whole - output)[real]).abs().max() < TOLERANCE * max(1.0, float(output.abs().max()))
        return found

    watching = Watching(look)
    with watching(model):
        run(model, ids, mask, cache)
    for b, row in enumerate(rows):
        length = row.shape[1]
        own = torch.arange(ids.shape[1])[mask[b] == 1]
        for layer, (maps, value) in reference(family, row).items():
            prefill = watching.found[0][layer]
            sets = torch.nn.functional.pad(marks[b][:, own], (0, len(CONTINUATION)))
            sets[1, length:] = True
            compared(
                (prefill.output[b][:, own], prefill.mass[b][:, own], prefill.seen[b][:, own]),
                maps, value, sets[:, :length], slice(0, length),
            )  # fmt: skip
            assert (prefill.output[b][:, mask[b] == 0] == 0).all()
            if side == "right" and family in WINDOWED:
                continue  # There a window counts the padding amid a sequence, as the identity in `look` has it.
            for step, found in enumerate(watching.found[1:]):
                now, at = found[layer], length + step
                compared((now.output[b], now.mass[b], now.seen[b]), maps, value, sets[:, : at + 1], slice(at, at + 1))


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_choice_are_rows_of_all(backend, side, monkeypatch):
    ids, mask = batch_of(sequences(), side)
    model, marks = tiny_llama(backend), prompt_marks(mask)
    monkeypatch.setattr("omnisink.methods.sets._BLOCK", {"cpu": 3 * 2 * 13 * 2 * 4})

    def look(call, context, output):
        whole = shares_of(call, context, marks)
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        if context.now.is_prefill:
            assert last_rows(context)[:, 0].tolist() == last.tolist()
        else:
            last = torch.zeros_like(last)
        own = shares_of(call, context, marks, last_rows(context))
        some = shares_of(call, context, marks, slice(-3, None))
        for name in ("output", "mass", "seen"):
            every = getattr(whole, name)
            for b in range(2):
                assert torch.allclose(getattr(own, name)[b, :, 0], every[b, :, last[b]], atol=1e-6)
            assert torch.allclose(getattr(some, name), every[:, :, -3:], atol=1e-6)
        blocks = list(blocks_of(call, context, marks))
        assert len(blocks) == -(-call.query.shape[2] // 3)
        assert torch.allclose(torch.cat([s.output for _, s in blocks], dim=2), whole.output, atol=1e-6)
        assert blocks[-1][0].stop == call.query.shape[2]

    with Watching(look)(model):
        run(model, ids, mask, "dynamic")


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_keys_receive_is_summed_over_the_rows_that_count(side):
    rows = sequences()
    ids, mask = batch_of(rows, side)
    model = FAMILIES["gemma3"].build("sdpa")
    counted = prompt_marks(mask)[:, 0]

    def look(call, context, output):
        if context.now.is_prefill:
            return received_from(call, context), received_from(call, context, counted)
        return None

    watching = Watching(look)
    with watching(model):
        run(model, ids, mask, "static", ())
    for b, row in enumerate(rows):
        own = torch.arange(ids.shape[1])[mask[b] == 1]
        for layer, (maps, _) in reference("gemma3", row).items():
            square = maps[:, : row.shape[1], : row.shape[1]]
            every, some = (found[b][:, own] for found in watching.found[0][layer])
            assert (every - square.sum(dim=1)).abs().max() < TOLERANCE
            assert (some - square[:, counted[b, own]].sum(dim=1)).abs().max() < TOLERANCE


@dataclass(frozen=True)
class Louder(Method):
    """Multiply the attention to some tokens, or give it to others, at every layer and row."""

    marks: torch.Tensor = field(default=None, compare=False)
    factor: float = 2.0
    to: int | None = None

    def head_output(self, call, output, context):
        shares = shares_of(call, context, complement(self.marks), later=len(self.marks[0]))
        factors = torch.tensor([self.factor, *[1.0] * len(self.marks[0])])
        if self.to is None:
            return reweigh(shares, factors).transpose(1, 2).to(output.dtype)
        return output + difference(shares, give(shares, factors, self.to)).transpose(1, 2).to(output.dtype)


def test_a_method_made_of_them_is_a_mask_that_adds_a_logarithm():
    """And a decode step is the prefill's row of the same token."""
    model, ids = tiny_llama(), prompt(12, (0, 5))
    whole = torch.cat([ids, torch.tensor([CONTINUATION])], dim=1)
    length = whole.shape[1]
    marks = torch.zeros(1, 1, 12, dtype=torch.bool)
    marks[..., [0, 5, 6]] = True
    bias = torch.zeros(length, length)
    bias[:, [0, 5, 6]] = 2.0**0.5
    bias = bias.masked_fill(torch.ones(length, length).triu(1).bool(), torch.finfo(torch.float32).min)
    with torch.inference_mode():
        expected = model(input_ids=whole, attention_mask=bias[None, None]).logits[0]
        cache = DynamicCache(config=model.config)
        with Louder(marks, float(torch.tensor(2.0**0.5).exp()))(model):
            found = [model(input_ids=ids, past_key_values=cache).logits[0]]
            found += [model(input_ids=torch.tensor([[t]]), past_key_values=cache).logits[0] for t in CONTINUATION]
    assert (torch.cat(found) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("rows", [None, slice(-3, None), torch.tensor([[4], [7]]), torch.tensor([[0, 5]])], ids=str)
def test_changes_are_added_to_their_rows_only(rows):
    output = torch.randn(2, 8, 3, 4).bfloat16()
    count = 8 if rows is None else 3 if isinstance(rows, slice) else rows.shape[1]
    change = torch.randn(2, 3, count, 4)
    found, before = add_to_rows(output, change, rows), output.clone()
    assert torch.equal(output, before)
    assert found.dtype == torch.bfloat16
    for b in range(2):
        index = range(8)[rows or slice(None)] if not isinstance(rows, torch.Tensor) else rows[min(b, len(rows) - 1)]
        expected = before[b].clone()
        for i, t in enumerate(index):
            expected[t] += change[b, :, i].bfloat16()
        assert torch.equal(found[b], expected)


def test_giving_with_factors_of_one_is_bit_identical():
    model, ids = tiny_llama(), prompt(12, (0, 5))
    marks = torch.zeros(1, 2, 12, dtype=torch.bool)
    marks[0, 0, 0] = marks[0, 1, 4] = True
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
        with Louder(marks, 1.0, to=1)(model):
            assert torch.equal(model(input_ids=ids).logits, plain)
        with Louder(marks, 0.2, to=1)(model):
            assert (model(input_ids=ids).logits - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (torch.zeros(1, 2, 11, dtype=torch.bool), r"\(B, X, 12\), the tokens of the prompt"),
        (torch.zeros(1, 2, 12), "torch.float32"),
        (torch.zeros(1, 12, dtype=torch.bool), r"\(1, 12\)"),
    ],
)
def test_marks_that_do_not_fit_are_refused(marks, message):
    model, ids = tiny_llama(), prompt(12)
    with pytest.raises(OmnisinkError, match=message), torch.inference_mode():
        with Watching(lambda call, context, output: shares_of(call, context, marks))(model):
            model(input_ids=ids)


def test_marks_may_be_given_over_the_keys_of_a_later_pass():
    model, ids = tiny_llama(), prompt(12)

    def look(call, context, output):
        keys = call.key.shape[2]
        recent = torch.arange(keys) >= keys - 4  # as a sliding window would have it
        assert torch.equal(marks_over_keys(call, context, recent[None, None])[0, 0], recent)
        return shares_of(call, context, complement(recent[None, None])).mass.sum(dim=-1)

    watching = Watching(look)
    with watching(model):
        run(model, ids, torch.ones_like(ids), "dynamic")
    assert all((mass - 1).abs().max() < 1e-5 for found in watching.found for mass in found.values())


def test_a_mask_for_each_head_is_refused():
    model, ids = tiny_llama("eager"), prompt(8)
    marks = torch.ones(1, 1, 8, dtype=torch.bool)
    each = torch.zeros(1, 4, 8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), torch.finfo(torch.float32).min)
    with pytest.raises(UnsupportedModelError, match="another attention mask for each of 4 heads"):
        with Watching(lambda call, context, output: shares_of(call, context, marks))(model), torch.inference_mode():
            model(input_ids=ids, attention_mask=each)
