"""The cost of every method, tried on tiny models: each has its lines or a reason, and lines become a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from benchmarks.history import append, write_methods_table
from benchmarks.methods import Bench, cases, lines
from omnisink.methods.base import Method
from omnisink.methods.registry import Registered, registered_methods
from omnisink.methods.spans import require_modality
from omnisink.verification.families import FAMILIES
from tests.reference_outro import prompt, tiny_llama

PASSES = {"prefill 20": (20, 0), "decode 3": (12, 3)}


def text_bench(_=None):
    model = tiny_llama()
    return Bench("tiny", model, lambda length: {"input_ids": prompt(length)})


@dataclass(frozen=True)
class Dimming(Method):
    """Dim the pictures."""

    needs_spans: ClassVar[bool] = True

    def head_output(self, call, output, context):
        image = require_modality(context, "image")
        return output * (1 - 0.5 * image[..., None, None].float()) if context.now.is_prefill else output


def test_every_registered_method_has_its_lines():
    """On a text model; one that acts on modalities has a reason in their place there."""
    known = registered_methods()
    found = list(lines(known, text_bench, PASSES, 3))
    assert [(one.name, case) for one, case, _ in found] == [(one.name, case) for one in known for case in PASSES]
    for one, case, line in found:
        if isinstance(line, str):
            assert one.kind.needs_spans, f"{one.name} has no line: {line}"
            continue
        assert line["case"].endswith(f": {case} (tiny)")
        assert line["pairs"] == 3
        assert 0 < line["p20"] <= line["p50"] <= line["p80"]


def test_a_method_that_changes_nothing_says_so():
    """A text without a picture leaves nothing to dim; zeroed heads change every number."""
    model = FAMILIES["llava"].build()
    bench = Bench("llava", model, lambda length: {"input_ids": torch.full((1, length), 30)})
    one = Registered("dimming", Dimming, "a test")
    assert [line["case"] for _, _, line in lines([one], lambda _: bench, PASSES, 2)] == [
        "dimming, idle: prefill 20 (llava)",
        "dimming, idle: decode 3 (llava)",
    ]
    with_picture = Bench("llava", model, lambda _: FAMILIES["llava"].multimodal_inputs(model))
    assert [line["case"] for _, _, line in lines([one], lambda _: with_picture, PASSES, 2)] == [
        "dimming: prefill 20 (llava)",
        "dimming: decode 3 (llava)",
    ]


def test_a_model_that_a_method_does_not_fit_is_a_reason():
    one = Registered("dimming", Dimming, "a test")
    reasons = [line for _, _, line in lines([one], text_bench, PASSES, 2)]
    assert len(reasons) == 2
    assert all(reason.startswith("Dimming acts on image tokens") for reason in reasons)


def test_settings_without_a_value_are_a_reason():
    @dataclass(frozen=True)
    class Needy(Dimming):
        strength: float

    (reason, _) = (line for _, _, line in lines([Registered("needy", Needy, "a test")], text_bench, PASSES, 2))
    assert "strength" in reason


def test_the_measured_passes():
    assert cases() == {"prefill 768": (768, 0), "decode 24": (256, 24)}


def test_lines_become_one_row_for_each_method(tmp_path):
    history, page = tmp_path / "history.csv", tmp_path / "page.md"
    page.write_text("before\n<!-- generated from benchmarks/history.csv: methods -->\nold\n<!-- end -->\nafter\n")
    where = {"date": "2026-11-27T08:00Z", "machine": "a CPU", "threads": 2, "load": 0.1}
    common = {"model": "methods", "dtype": "float32", "p20": 0.99, "p80": 1.2, "plain_ms": 1234.5, "pairs": 9}
    rows = [
        {**common, "case": "outro: prefill 768 (tiny)", "p50": 1.5},
        {**common, "case": "outro: prefill 768 (tiny)", "p50": 1.0244},
        {**common, "case": "outro: decode 24 (tiny)", "p50": 1.04},
        {**common, "case": "dim, idle: prefill 768 (omni)", "p50": 1.001},
    ]
    append(rows, history, where)
    append([{**common, "model": "smollm2-135m", "case": "prefill 768", "p50": 9.0}], history, where)
    write_methods_table(history, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert [line for line in text.splitlines() if line.startswith("|")] == [
        "| method | model | prefill 768 | decode 24 | machine | date |",
        "| --- | --- | --- | --- | --- | --- |",
        "| `outro` | tiny | 1.024 (0.990 to 1.200; 9 pairs of 1,234 ms) | 1.040 (0.990 to 1.200; 9 pairs of 1,234 ms) "
        "| a CPU, 2 threads, load 0.1 | 2026-11-27 |",
        "| `dim` | omni | 1.001 (0.990 to 1.200; 9 pairs of 1,234 ms; changed nothing) | – "
        "| a CPU, 2 threads, load 0.1 | 2026-11-27 |",
    ]


@pytest.mark.parametrize("name", [one.name for one in registered_methods()])
def test_every_method_can_be_tried_without_settings_of_ones_own(name):
    kind = next(one.kind for one in registered_methods() if one.name == name)
    assert isinstance(kind(**kind.example), kind)
