"""The verification itself: it must notice what is wrong, and be the one that writes the table."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from omnisink import OmnisinkError, OutRo
from omnisink.models.families import FAMILIES
from omnisink.models.verify import BEGIN, END, table, verify, verify_all, write_table

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
