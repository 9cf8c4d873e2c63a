"""The verification itself: it must notice what is wrong, and be the one that writes the table."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from omnisink import OmnisinkError, OutRo
from omnisink.verification import verify as verify_module
from omnisink.verification.families import FAMILIES
from omnisink.verification.family import transformers_class
from omnisink.verification.support_table import BEGIN, END, table, write_gpu_column, write_table
from omnisink.verification.verify import Result, verify, verify_all

METHOD = OutRo(gamma=0.5)
LLAMA = replace(FAMILIES["llama"], backends=("sdpa", "eager"))


def test_a_supported_family_passes_on_its_backends():
    result = verify(LLAMA, METHOD)
    assert (result.outcome, result.backends, result.problems) == ("supported", ("sdpa", "eager"), [])
    assert result.as_expected
    assert result.to_dict()["as_expected"] is True


def test_a_partial_family_reports_its_layers():
    result = verify(replace(FAMILIES["gemma3"], backends=("sdpa",)), METHOD)
    assert result.outcome == "partial"
    assert all("window" in reason for reason in result.skipped_layers.values())


def test_a_refused_family_gives_the_reason():
    result = verify(FAMILIES["mamba"], METHOD)
    assert (result.outcome, result.backends) == ("refused", ())
    assert "Mamba" in result.refusal


def test_a_multimodal_family_passes():
    result = verify(replace(FAMILIES["qwen2_5_omni"], backends=("sdpa",)), METHOD)
    assert (result.outcome, result.problems) == ("supported", [])


@pytest.mark.parametrize("expectation", ["partial", "refused"])
def test_another_outcome_than_promised_deviates(expectation):
    assert not verify(replace(LLAMA, expectation=expectation, backends=("sdpa",)), METHOD).as_expected


def test_a_method_that_does_nothing_is_noticed():
    result = verify(LLAMA, OutRo(gamma=0.0, relax=False))
    assert result.outcome == "failed"
    assert "sdpa: text: no token was rotated" in result.problems
    assert "sdpa: text: the method changed nothing" in result.problems


def test_a_method_that_leaves_something_behind_is_noticed():
    @contextmanager
    def careless(model):
        with METHOD(model) as trace:
            yield trace
        model.lm_head.weight.data[0] += 1

    result = verify(LLAMA, careless)
    assert any("outputs after the block differ" in problem for problem in result.problems)


def test_sinks_elsewhere_are_noticed():
    result = verify(replace(LLAMA, build=lambda **options: FAMILIES["llama"].build(plant=False, **options)), METHOD)
    assert any("were not found" in problem for problem in result.problems)


def test_a_crash_is_a_result_and_does_not_stop_the_rest():
    def broken(**_):
        raise RuntimeError("no such luck\nand more")

    seen = []
    results = verify_all([replace(LLAMA, build=broken), FAMILIES["mamba"]], METHOD, seen.append)
    assert [result.outcome for result in results] == ["failed", "refused"]
    assert results[0].problems[0] == "sdpa: RuntimeError: no such luck"
    assert seen == ["Llama", "Mamba"]


def test_the_table_replaces_what_stood_between_the_markers(tmp_path):
    page = tmp_path / "models.md"
    page.write_text(f"# Head\n\n{BEGIN}\nold\n{END}\n\ntail\n")
    results = [verify(FAMILIES["mamba"], METHOD)]
    for _ in range(2):  # Writing twice is writing once.
        write_table(results, page, {"omnisink": "1.2", "torch": "3"})
        assert (
            page.read_text()
            == f"# Head\n\n{BEGIN}\n{table(results, {'omnisink': '1.2', 'torch': '3'})}\n{END}\n\ntail\n"
        )
    assert "Verified with omnisink 1.2, torch 3." in page.read_text()
    assert "| Mamba | text | `" in page.read_text()
    assert "old" not in page.read_text()


@pytest.mark.parametrize("content", ["no markers", f"{END}\n{BEGIN}"])
def test_a_page_without_a_place_for_the_table_is_left_alone(content, tmp_path):
    page = tmp_path / "models.md"
    page.write_text(content)
    with pytest.raises(OmnisinkError, match="no place for the table"):
        write_table([], page, {})
    assert page.read_text() == content
    with pytest.raises(OmnisinkError, match="cannot read"):
        write_table([], tmp_path / "absent.md", {})


def test_what_ran_on_a_gpu_is_a_column_that_either_writer_keeps(tmp_path):
    page, gpu = tmp_path / "models.md", {"omnisink": "1.3", "torch": "4"}
    page.write_text(f"# Head\n\n{BEGIN}\n{END}\n\ntail\n")
    names = ("llama", "gemma3", "mamba")
    outcomes = [("supported", ("sdpa", "eager")), ("partial", ("sdpa",)), ("refused", ())]
    results = [
        Result(f.name, f.title, f.example, f.modalities, f.expectation, outcome, backends, note="a / note")
        for f, (outcome, backends) in zip((FAMILIES[n] for n in names), outcomes, strict=True)
    ]
    with pytest.raises(OmnisinkError, match="no table yet"):
        write_gpu_column(results, page, gpu, "A100", "2026-01-02")
    write_table(results, page, {"omnisink": "1.2"})
    plain = page.read_text()
    failed = replace(results[0], outcome="failed", backends=(), problems=["sdpa: a | b", "eager: c"])
    for device in ("A100", "H100"):  # The second takes the place of the first.
        write_gpu_column([failed, *results[1:2]], page, gpu, device, "2026-01-02")
    text = page.read_text()
    assert text.startswith("# Head\n\n")
    assert text.endswith(f"\n\n{END}\n\ntail\n")
    assert "A100" not in text
    assert text.count("On a GPU: H100, 2026-01-02, with omnisink 1.3, torch 4.") == 1
    assert "Verified with omnisink 1.2." in text
    assert "| family | takes | example | status | backends | on a GPU | note |" in text
    assert "| supported | sdpa, eager | **failed**: sdpa: a \\| b; eager: c | a / note |" in text
    assert "| partial | sdpa | partial: sdpa | a / note |" in text
    assert "| refused |  | not run | a / note |" in text
    # The CPU's writer keeps the column, also for rows that have moved, and has none for a family that is new.
    write_table([results[1], results[0]], page, {"omnisink": "1.4"})
    text = page.read_text()
    assert "Verified with omnisink 1.4." in text
    assert "On a GPU: H100" in text
    assert text.index("| partial | sdpa | partial: sdpa |") < text.index("| **failed**: sdpa: a \\| b")
    write_table(results, page, {"omnisink": "1.2"})
    assert [
        line
        for line in page.read_text().splitlines()
        if line.startswith("| Mamba") and "| refused |  | not run |" in line
    ]
    bare = re.sub(r"On a GPU: .*\n\n", "", page.read_text())
    bare = re.sub(r"^(\|(?: [^|]*\|){5}) (?:[^|\\]|\\.)*\|", r"\1", bare, flags=re.M)
    assert bare == plain, "nothing else has changed"


def test_a_class_that_transformers_does_not_have_breaks_no_promise():
    absent = replace(LLAMA, build=lambda **_: transformers_class("NoSuchForCausalLM"))
    result = verify(absent, METHOD)
    assert (result.outcome, result.backends, result.problems) == ("absent", (), [])
    assert result.as_expected
    assert "has no NoSuchForCausalLM" in result.refusal
    assert "has no NoSuchForCausalLM" in table([result], {"torch": "3"})


@pytest.mark.parametrize("name", [name for name, f in FAMILIES.items() if f.multimodal_inputs is not None])
def test_every_input_goes_where_the_model_goes(name, monkeypatch):
    """The device is one that holds no values, so the verification is followed up to the first use of one."""
    given = []

    def look(model, inputs, attach, what, problems):
        given.append((model.device.type, {value.device.type for value in inputs.values()}))
        return [torch.zeros(2, 1)], SimpleNamespace(skipped_layers={})

    monkeypatch.setattr(verify_module, "_compare", look)
    monkeypatch.setattr(verify_module, "_LENGTHS", ())
    family = replace(
        FAMILIES[name], inputs=lambda model, **_: {"attention_mask": torch.zeros(0, 1, device=model.device)}
    )
    result = verify(replace(family, backends=("sdpa",)), METHOD, "meta")
    assert result.problems == []
    assert given == [("meta", {"meta"})] * 2
