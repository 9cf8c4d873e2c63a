"""On an accelerator nothing waits for the host: no value is read while the model runs.

There is no accelerator here, so the path that one takes is chosen by hand, and every operation that brings a value or
a data-dependent shape to the host fails if our code asked for it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, StaticCache

import omnisink
from omnisink import OutRo
from omnisink.decoder import twins
from omnisink.maths import decomposition, prompts, rotation, sinks
from omnisink.maths.sets import complement, difference, give, reweigh
from omnisink.methods import (
    ACT,
    ASD,
    PAI,
    SID,
    VAR,
    ForkMerge,
    VisFlow,
    act,
    asd,
    base,
    fork_merge,
    image_tokens,
    outro,
    sid,
    var,
)
from omnisink.methods.base import Method
from omnisink.methods.criteria import Positions
from omnisink.methods.sets import add_to_rows, blocks_of, last_rows, received_from, shares_of
from omnisink.methods.spans import require_modality
from tests.reference_outro import prompt, tiny_llama

PACKAGE = os.path.dirname(omnisink.__file__) + os.sep
READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::item",
    "aten::is_nonzero",
    "aten::_unique2",
    "aten::equal",
}


class NoReads(TorchDispatchMode):
    """Fail when code of the package reads a value on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in READS:
            frame = sys._getframe(1)
            while frame is not None:
                if frame.f_code.co_filename.startswith(PACKAGE):
                    raise AssertionError(f"{func} in {frame.f_code.co_filename}:{frame.f_lineno}")
                frame = frame.f_back if "transformers" not in frame.f_code.co_filename else None
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    for module in (sinks, rotation, prompts, outro, base):
        monkeypatch.setattr(module, "is_eager_cpu", lambda _: False)


def passes(model, ids, mask, cache, mode):
    token = torch.full((len(ids), 1), 20)
    with torch.inference_mode(), mode:
        return [
            model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits,
            *[model(input_ids=token, past_key_values=cache).logits for _ in range(2)],
        ]


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("padded", [False, True])
def test_no_value_is_read_and_the_answers_are_the_same(kind, padded, as_on_an_accelerator, monkeypatch):
    import contextlib

    model = tiny_llama()
    ids = torch.cat([prompt(13, (2, 6)), prompt(13, ()).clamp(min=10)])
    mask = torch.ones_like(ids)
    mask[:, :2] = 0 if padded else 1

    def cache():
        return DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=32)

    with OutRo()(model) as trace:
        found = passes(model, ids, mask, cache(), NoReads())
    seen = trace.sinks.to_json(), trace.relaxed, trace.rotated_tokens
    monkeypatch.undo()
    with OutRo()(model) as trace:
        expected = passes(model, ids, mask, cache(), contextlib.nullcontext())
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(found, expected, strict=True))
    assert (trace.sinks.to_json(), trace.relaxed, trace.rotated_tokens) == seen


@dataclass(frozen=True)
class Dimmed(Method):
    """Give attention to a picture to the words, in every row of every pass."""

    needs_spans: ClassVar[bool] = True

    def head_output(self, call, output, context):
        marks = torch.stack([require_modality(context, "image"), context.spans["text"]], dim=1)
        factors = torch.tensor([0.5, 1.0])
        for rows, shares in blocks_of(call, context, marks, later=1):
            output = add_to_rows(output, difference(shares, give(shares, factors, 1)), rows)
        # And once more for the rows that differ from sequence to sequence.
        shares = shares_of(call, context, complement(marks), last_rows(context))
        received_from(call, context)
        return output + 0 * reweigh(shares, torch.ones(3)).transpose(1, 2)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("padded", [False, True])
def test_sets_of_tokens_and_their_modalities_wait_for_nothing(kind, padded, monkeypatch):
    import contextlib

    model = tiny_llama()
    model.config.image_token_id = 20
    ids = torch.cat([prompt(13, (2, 6)), prompt(13, ()).clamp(min=10)])
    ids[:, 4:6] = 20
    mask = torch.ones_like(ids)
    mask[:, :2] = 0 if padded else 1
    found = []
    for mode in (contextlib.nullcontext(), NoReads()):
        cache = DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=32)
        with Dimmed()(model):
            found.append(passes(model, ids, mask, cache, mode))
        monkeypatch.setattr(decomposition, "is_eager_cpu", lambda _: False)
        monkeypatch.setattr(base, "is_eager_cpu", lambda _: False)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(*found, strict=True))


MOVING = {
    "var": VAR(Positions((0, 2, 4)), least=0.0, rho=0.0, donors="text"),
    "pai": PAI(alpha=1.0),
    "asd": ASD(Positions(range(2, 10)), start=2, strength=3.0),
    "act": ACT(threshold=0.05),
    "visflow": VisFlow(text_over=0.2, system_over=0.1),
    "sid": SID(beta=0.0, rank=1),
    "fork-merge": ForkMerge(fork_layer=2),
}


@pytest.mark.parametrize(("name", "kind"), [(name, ("dynamic", "static")[k % 2]) for k, name in enumerate(MOVING)])
@pytest.mark.parametrize("padded", [False, True])
def test_methods_that_move_attention_wait_for_nothing(name, kind, padded, monkeypatch):
    import contextlib

    model = tiny_llama()
    ids = torch.cat([prompt(13, (2, 6)), prompt(13, ()).clamp(min=10)])
    image, sound = torch.zeros(2, 2, 13, dtype=torch.bool)
    image[:, 4:6], sound[:, 8:10] = True, True
    mask = torch.ones_like(ids)
    mask[:, :2] = 0 if padded else 1
    found = []
    for mode in (contextlib.nullcontext(), NoReads()):
        cache = DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=32)
        with MOVING[name](model, spans={"image": image, "audio": sound}):
            found.append(passes(model, ids, mask, cache, mode))
        for module in (decomposition, base, image_tokens, var, asd, act, sid, fork_merge):
            monkeypatch.setattr(module, "is_eager_cpu", lambda _: False)
        monkeypatch.setattr(twins, "is_free_to_read", lambda _: False)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(*found, strict=True))
    bare = passes(model, ids, mask, DynamicCache(config=model.config), contextlib.nullcontext())
    assert not all(torch.allclose(a, b) for a, b in zip(found[0], bare, strict=True))


def test_a_read_would_be_noticed():
    model = tiny_llama()
    with (
        pytest.raises(AssertionError, match=r"sinks\.py|prompts\.py|outro\.py"),
        OutRo()(model),
        torch.inference_mode(),
        NoReads(),
    ):
        model(input_ids=prompt(9))


def test_idle_is_bit_identical_there_too(as_on_an_accelerator):
    model = tiny_llama()
    ids = prompt(9, ()).clamp(min=10)
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
        with OutRo()(model):
            assert torch.equal(model(input_ids=ids).logits, plain)
