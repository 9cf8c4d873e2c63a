"""One layer in three ways: with operators for CPUs, with PyTorch's, and blindly, as on an accelerator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from omnisink.maths import rotation, sinks
from omnisink.serving import layer as plain
from omnisink.serving.counters import Counters
from omnisink.serving.host_layer import HostLayer
from omnisink.serving.layer import OutRoLayer
from omnisink.serving.sequences import Sequences, Step
from omnisink.serving.settings import ServingSettings
from tests.serving.test_sequences import new, output

CPU = torch.device("cpu")
HEADS, KV_HEADS, DEPTH, WIDTH = 6, 2, 8, 24
#: Prompts of a first pass, which begins with those of a second, and where their sinks are.
LENGTHS = {"a": 5, "b": 9, "c": 4, "d": 7, "e": 6}
SINKS = {"a": [0], "b": [0, 4], "c": [], "d": [2], "e": [0, 1, 5]}
SAID: dict[str, Any] = {"b": {"gamma": -0.6}, "d": {"gamma": 0.0, "relax": True}, "e": {"decode": False}}


def tensors(seed: int, names: dict[str, int], sinks_: dict[str, list[int]]) -> list[Tensor]:
    """Make residual stream, queries, keys, values and head outputs of a pass; the residual stream has sinks."""
    total = sum(names.values())
    random = torch.Generator().manual_seed(seed)
    made = [torch.randn(total, WIDTH, generator=random)]
    made += [torch.randn(total, heads, DEPTH, generator=random) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    start = 0
    for name, length in names.items():
        for token in sinks_.get(name, []):
            made[0][start + token, 3] = 5_000.0
        start += length
    return made


def lay_out(sequences: Sequences, names: dict[str, int]) -> Step:
    starts = [0]
    for length in names.values():
        starts.append(starts[-1] + length)
    return sequences.lay_out(list(names), starts)


def passes(kind: type[OutRoLayer]) -> tuple[list[Tensor], dict[str, int]]:
    """Run two layers over prompts, a token of each with a prompt that joins, and prompts that were preempted."""
    sequences = Sequences(ServingSettings(gamma=0.5, tau=0.2), 8, 256, CPU, 28)
    counters = Counters(8, CPU, publish=False)
    made = [torch.zeros(9, KV_HEADS, DEPTH) for _ in range(2)]
    layers = [kind(4 + i, 28, DEPTH**-0.5, made[i], sequences, counters) for i in range(2)]
    out = []
    first = {name: LENGTHS[name] for name in "abcd"}
    second = {"a": 1, "b": 1, "e": LENGTHS["e"], "d": 1}
    third = {"a": 1, "b": LENGTHS["b"] + 2, "e": LENGTHS["e"] + 1, "d": 1}
    fourth = dict.fromkeys("ebda", 1)
    news = {name: new(name, LENGTHS[name], SAID.get(name)) for name in LENGTHS}
    scheduled = [
        (first, output([news[name] for name in first])),
        (second, output([news["e"]], going=["a", "b", "d"], ended=["c"])),
        (third, output(going=["a", "d"], resumed={"b": third["b"], "e": third["e"]}, preempted=["b", "e"])),
        (fourth, output(going=list(fourth))),
    ]
    for number, (names, said) in enumerate(scheduled):
        slots = sequences.schedule(said)
        for directions in made:
            directions[slots] = 0
        for one in sequences.starting:
            counters.begin(one.slot, one.first, sequences.null_slot)
        step = lay_out(sequences, names)
        if step.slots is not None:
            counters.continued(step.slots, sequences.gammas, step.key)
        for index, layer in enumerate(layers):
            # The second layer has one sink more in a prompt, so that what was one stays as it is.
            more = {name: [*at, 3] if index and name == "b" else at for name, at in SINKS.items()}
            begins = {name: more[name] for name, length in names.items() if length > 1}
            residual, query, key, value, head_outputs = tensors(10 * number + index, names, begins)
            if step.prefills:
                layer.observe(step, residual)
            layer.act(step, query, key, value, head_outputs)
            out.append(head_outputs)
        for one in sequences.starting:
            counters.prompt_ran(one)
    return out, counters.totals


def test_the_three_ways_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, counted = passes(OutRoLayer)
    got, same = passes(HostLayer)
    assert same == counted
    for module in (plain, rotation, sinks):
        monkeypatch.setattr(module, "is_eager_cpu", lambda _: False)
    blind, as_well = passes(OutRoLayer)
    assert as_well == counted
    assert counted["requests"] == 5
    assert counted["requests_with_sinks"] == 4
    assert counted["rows_relaxed"] > 4
    untouched = [
        tensors(10 * number + index, names, {})[4]
        for number, names in enumerate(
            [{n: LENGTHS[n] for n in "abcd"}, {"a": 1, "b": 1, "e": 6, "d": 1}, {"a": 1, "b": 11, "e": 7, "d": 1}]
        )
        for index in range(2)
    ]
    for before, one, other, third in zip(untouched, expected, got, blind, strict=False):
        assert not torch.equal(one, before)
        torch.testing.assert_close(other, one, rtol=0, atol=2e-6)
        torch.testing.assert_close(third, one, rtol=0, atol=2e-6)
    torch.testing.assert_close(got[-1], expected[-1], rtol=0, atol=2e-6)
    torch.testing.assert_close(blind[-1], expected[-1], rtol=0, atol=2e-6)
