"""What the command for GPUs measures and checks of SinkRouter, tried on the CPU."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import attention, check_routing, routing, table
from benchmarks.gpu.lines import Line, Skip
from benchmarks.gpu.options import Options
from benchmarks.gpu.shapes import measured_model
from benchmarks.gpu.timing import Measured
from omnisink.maths.routing import Routed
from omnisink.methods import sink_router

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)  # Some random weights have no threshold that routes as many heads as are wanted.
    return measured_model("tiny", CPU)


@pytest.mark.parametrize("batch", [1, 3])
def test_steps_are_compared_with_the_share_of_heads_routed_that_is_aimed_at(model, batch, monkeypatch):
    monkeypatch.setattr(routing, "LIMIT", 0.1)
    before = model.config._attn_implementation
    with torch.inference_mode():
        ratio, rest = routing.measured(model, 64, batch, compiles=False, threshold=routing.NOTHING)
    heads = batch * 7 * 2
    # The share is that of the last step compared, a later one than that by which the threshold was chosen.
    assert abs(rest["data"]["share"] - 0.6) <= max(0.02, 1.51 / heads)
    assert ratio.pairs >= 3
    assert f"{rest['data']['share']:.0%} routed" in rest["detail"]
    assert "baseline math" in rest["detail"]
    assert 1 < rest["data"]["bound"] < 2
    assert model.config._attn_implementation == before
    assert sink_router.routed_decode.__module__ == "omnisink.maths.routing"


def test_a_cache_that_does_not_fit_is_skipped_with_both_sizes(model, monkeypatch):
    class OnAGpu:
        config, dtype, device = model.config, torch.bfloat16, torch.device("cuda")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10_000_000_000, 0))
    size = 8 * 10_000_000 * 2 * 7 * 2 * 32 * 2  # Keys and values, layers, heads, channels, bytes.
    assert routing.cache_bytes(OnAGpu, 10_000_000, 8) == size
    with pytest.raises(Skip, match=f"takes {size / 1e9:.0f} GB, of 10 GB that are free"):
        routing.measured(OnAGpu, 10_000_000, 8, compiles=False, threshold=0.5)


def test_every_case_has_a_row_in_the_table_and_a_quick_run_has_one():
    for quick, shapes in ((False, routing.SHAPES), (True, routing.QUICK)):
        measured = object.__new__(Measured)
        measured.options = Options("", device="cpu", shape="tiny", quick=quick)
        names = [case.name for case in measured.cases() if case.part == "routing"]
        assert names == [routing.case_name(*shape) for shape in shapes]
        assert set(names) <= set(table.TARGETS)
    assert "at most 0.493: NO" in table.line_text(
        Line("routing", "router decode 524288, batch 1", "measured", 0.5, 0.5, 0.5, 14.0, 9)
    )


@pytest.mark.parametrize("taken", [{"flash": 3.0, "cuDNN": 2.0}, {"flash": 1.0, "cuDNN": NotImplementedError()}])
def test_the_fastest_attention_is_the_baseline_and_all_are_named(model, taken, monkeypatch):
    steps = {name: object() for name in taken}
    monkeypatch.setattr(attention, "ways", lambda device, compiles: steps)
    monkeypatch.setattr(attention, "_least", lambda step, *rest: taken[next(n for n in steps if steps[n] is step)])
    cache = routing.StaticCache(config=model.config, max_cache_len=20)
    with torch.inference_mode(), attention.attending(model):
        routing.fill(model, cache, torch.arange(1, 9)[None])
        step, said = attention.fastest(model, cache, compiles=True)
    best = min((n for n in taken if isinstance(taken[n], float)), key=taken.get)
    assert step is steps[best]
    assert said.startswith(f"baseline {best}; ")
    assert all(name in said for name in taken)
    assert ("not cuDNN (NotImplementedError)" in said) == (best == "flash")


@pytest.mark.parametrize("grouped", [False, True])
def test_both_ways_of_grouping_attend_alike(grouped):
    query, key, value = torch.randn(2, 6, 1, 16), torch.randn(2, 2, 9, 16), torch.randn(2, 2, 9, 8)
    step = attention.with_backend(attention.SDPBackend.MATH, grouped)
    wide = [t.repeat_interleave(3, dim=1) for t in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *wide)
    assert (step(query, key, value) - expected).abs().max() < 1e-6


def _of_other_heads(found):
    return Routed(found.output, found.scores, found.routed.roll(1, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda found: Routed(found.output * 1.001, found.scores, found.routed),
        lambda found: Routed(found.output, found.scores + 1e-4, found.routed),
        _of_other_heads,
    ],
)
def test_a_wrong_step_fails_its_check(wrong, monkeypatch):
    right = check_routing.routed_decode
    monkeypatch.setattr(check_routing, "routed_decode", lambda *args, **options: wrong(right(*args, **options)))
    with pytest.raises(AssertionError):
        check_routing.routed(CPU, torch.float32)
