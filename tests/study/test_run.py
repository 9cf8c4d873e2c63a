"""A study that is killed and goes on gives what one gives that was left alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from omnisink.errors import OmnisinkError
from omnisink.methods.measurements import Recording
from omnisink.questions.items import Item, read_items
from omnisink.report.sections import sections_of
from omnisink.results.records import read_records
from omnisink.study import run as study
from omnisink.study.calibration import Calibration
from omnisink.study.heads import interpret
from omnisink.study.identification import summarise
from omnisink.study.plan import Plan, parse_questions
from omnisink.study.questions import QUESTIONS
from omnisink.study.run import run_study
from omnisink.study.unit import Unit

PLAN = Plan(gammas=(0.5,), direction_gammas=(0.5,), seeds=2, calibration=3, heads_items=3, pruning_items=2)
FACTS = {"model": {"name": "tiny"}, "data": {"file": "items.jsonl"}, "command": "omnisink study"}

#: Runs the study of `sys.argv` in a process of its own.
PROGRAM = """
import sys
from omnisink import load_model
from omnisink.questions.items import read_items
from tests.study.test_run import FACTS, PLAN, run_study
loaded = load_model(sys.argv[1], device="cpu", dtype="float32")
run_study(loaded, read_items(sys.argv[2]), PLAN, sys.argv[3], facts=FACTS)
"""


@pytest.fixture(scope="module")
def whole(tiny, items_file, tmp_path_factory):
    """Run a study without a break."""
    told: list[float] = []
    out = tmp_path_factory.mktemp("studies") / "whole"
    results = run_study(
        tiny, read_items(items_file), PLAN, out, facts=FACTS, progress=lambda share, what: told.append(share)
    )
    return out, results, told


def units(folder: Path) -> Counter[tuple[str, str, str]]:
    return Counter((r["item"], r["question"], r["unit"]) for r in read_records(folder))


def test_every_unit_is_there_once_and_the_progress_only_grows(whole):
    out, results, told = whole
    assert set(units(out).values()) == {1}
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert set(results["readings"]) == set(QUESTIONS)
    assert results["baseline"]["items"] == 8
    assert json.loads((out / "results.json").read_text()) == results
    made = Recording.load(out / "recording")
    assert made["marked"][0, 0, 0, 0]
    assert results["example"]["item"] == "item-0"
    assert len(results["example"]["tokens"]) == len(results["example"]["magnitude"][0])


def test_the_attention_to_all_modalities_together_is_all_attention(whole):
    _, results, _ = whole
    rows = results["identification"]["attention"]
    assert {row["layer"] for row in rows} == {0, 1, 2, 3}
    for layer in range(4):
        parts = {row["sink"]: row for row in rows if row["layer"] == layer}
        assert sum(row["mass"] for row in parts.values()) == pytest.approx(1, abs=1e-3)
        assert all(row["modality"] == "text" and row["items"] == 8 for row in parts.values())
        assert all(row["low"] <= row["mass"] <= row["high"] for row in parts.values())
        # The item's sinks are those of any layer, so the two ways of measuring are one number.
        heads = [row["sink_attention"] for row in results["heads"]["sink_attention"] if row["layer"] == layer]
        assert len(heads) == 4
        assert parts[True]["mass"] == pytest.approx(sum(heads) / 4, abs=1e-3)


def test_a_share_of_tokens_that_is_nought_in_every_prompt_has_no_interval(whole):
    """A prompt that was missed might have a sink, but would not consist of sinks."""
    out, _, _ = whole
    records = read_records(out)
    base = {r["item"]: r for r in records if r["unit"] == "base"}
    for record in (r for r in records if r["unit"] == "marks"):
        record["criteria"]["massive_activation"]["0"] |= {"marked": {"all": 0, "text": 0}, "positions": []}
    section = summarise(
        [r for r in records if r["question"] == "identification"],
        base,
        PLAN,
        Calibration.load(out / "calibration.npz"),
    )
    first, *_, last = (r for r in section["by_layer"] if r["criterion"] == "massive_activation")
    assert (first["share"], first["low"], first["high"]) == (0, None, None)
    assert 0 < last["low"] <= last["share"] <= last["high"] < 1


def test_intervals_of_heads_over_few_texts_are_said_to_be_too_narrow(whole):
    _, results, _ = whole
    section = results["heads"]
    assert {row["clusters"] for row in section["correlation"]} == {row["items"] for row in section["correlation"]}
    assert "texts intervals are too narrow" in results["readings"]["heads"][0]
    many = {**section, "correlation": [{**row, "clusters": 10} for row in section["correlation"]]}
    assert interpret(many)[0].endswith("have an interval that leaves out zero; one in twenty would by chance.")


def test_records_of_earlier_versions_are_summed_up_without_what_they_lack(tiny, items_file, tmp_path):
    items, plan = read_items(items_file, 2), dataclasses.replace(PLAN, questions=("identification", "values"))
    run_study(tiny, items, plan, tmp_path / "run", facts=FACTS)
    path = tmp_path / "run" / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for record in lines:
        record.pop("attention", None)
        record.pop("mass_before", None)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in lines))
    again = run_study(tiny, items, plan, tmp_path / "run", facts=FACTS)
    assert again["identification"]["attention"] == []
    assert all(row["mass_before"] is None and row["mass"] is not None for row in again["values"]["zero_k"])


@pytest.mark.slow
def test_a_killed_study_goes_on_without_losing_or_repeating_anything(whole, llama_folder, items_file, tmp_path):
    expected, results, _ = whole
    out = tmp_path / "killed"
    arguments = [sys.executable, "-c", PROGRAM, str(llama_folder), str(items_file), str(out)]
    kills = 0
    while True:
        process = subprocess.Popen(arguments, cwd=Path(__file__).parents[2])
        records = out / "records.jsonl"
        before = records.stat().st_size if records.exists() else 0
        # Wait until some units more are done, and strike in the midst of the next.
        while process.poll() is None:
            if kills < 2 and records.exists() and records.stat().st_size > before + 6_000:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills == 2
    assert units(out) == units(expected)
    again = json.loads((out / "results.json").read_text())
    for section in (*QUESTIONS, "baseline", "readings"):
        assert again[section] == results[section], section


def test_a_finished_study_is_summed_up_again_without_a_unit_of_work(whole, tiny, items_file, monkeypatch):
    out, results, _ = whole
    before = (out / "records.jsonl").read_bytes()
    monkeypatch.setattr("omnisink.study.run._run_item", None)
    again = run_study(tiny, read_items(items_file), PLAN, out, facts=FACTS)
    assert (out / "records.jsonl").read_bytes() == before
    assert {k: v for k, v in again.items() if k != "run"} == {k: v for k, v in results.items() if k != "run"}


def test_a_folder_of_another_study_is_refused(whole, tiny, items_file):
    out, _, _ = whole
    with pytest.raises(OmnisinkError, match="seeds"):
        run_study(tiny, read_items(items_file), Plan(seeds=1), out, facts=FACTS)
    with pytest.raises(OmnisinkError, match="model"):
        run_study(tiny, read_items(items_file), PLAN, out, facts={**FACTS, "model": {"name": "other"}})
    with pytest.raises(OmnisinkError, match="one item at least"):
        run_study(tiny, [], PLAN, out, facts=FACTS)


def test_fewer_questions_make_fewer_sections(tiny, items_file, tmp_path):
    results = run_study(
        tiny, read_items(items_file, 2), Plan(questions=("causality",), seeds=1), tmp_path / "one", facts=FACTS
    )
    assert "causality" in results
    assert not {"identification", "heads", "values"} & results.keys()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"questions": ("sinks",)}, "unknown question 'sinks'"),
        ({"questions": ()}, "one at least"),
        ({"gammas": (0.0,)}, "positive"),
        ({"direction_gammas": (0.5, -0.5)}, "direction_gammas must be positive"),
        ({"layer_parts": 0}, "layer_parts must be at least 1"),
        ({"gammas": (float("inf"),)}, "positive"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"keeps": (0.0,)}, "keeps"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(settings, reason):
    with pytest.raises(OmnisinkError, match=reason):
        Plan(**settings)


def test_questions_are_read_from_a_list():
    assert parse_questions("all") == tuple(QUESTIONS)
    assert parse_questions("values, identification") == ("identification", "values")
    assert "nonsense" in parse_questions("heads,nonsense")


def test_an_item_that_cannot_be_run_is_left_out_and_the_others_go_on(tiny, items_file, tmp_path):
    items = read_items(items_file, 3)
    broken = [Item("first", passage="W"), *items, Item("last", passage="g")]
    plan = Plan(questions=("values",), seeds=1, calibration=2, pruning_items=1)
    results = run_study(tiny, broken, plan, tmp_path / "some", facts=FACTS)
    assert set(results["run"]["failed"]) == {"first", "last"}
    assert all("a passage needs two tokens at least" in why for why in results["run"]["failed"].values())
    assert results["run"]["data"]["used"] == 3
    assert results["baseline"]["items"] == 3
    assert {r["item"] for r in read_records(tmp_path / "some")} == {item.id for item in items}
    before = (tmp_path / "some" / "records.jsonl").read_bytes()
    again = run_study(tiny, broken, plan, tmp_path / "some", facts=FACTS)
    assert (tmp_path / "some" / "records.jsonl").read_bytes() == before
    assert again["values"] == results["values"]
    with pytest.raises(OmnisinkError, match="no item could be run"):
        run_study(tiny, [broken[0], broken[-1]], plan, tmp_path / "none", facts=FACTS)


def test_an_item_that_fails_halfway_counts_for_nothing(tiny, items_file, tmp_path, monkeypatch):
    items, whole_units = read_items(items_file, 3), study.units

    def failing(measurements, *rest):
        for number, (question, unit) in enumerate(whole_units(measurements, *rest)):
            if measurements.runner.item.id == items[1].id and number == 3:
                raise RuntimeError("of the\nmachine")
            yield question, unit

    plan = Plan(questions=("values",), seeds=1, calibration=2, pruning_items=1)
    monkeypatch.setattr(study, "units", failing)
    results = run_study(tiny, items, plan, tmp_path / "run", facts=FACTS)
    assert results["run"]["failed"] == {items[1].id: "RuntimeError: of the machine"}
    assert results["baseline"]["items"] == 2
    monkeypatch.setattr(study, "units", whole_units)
    again = run_study(tiny, items, plan, tmp_path / "run", facts=FACTS)
    alone = run_study(tiny, items, plan, tmp_path / "alone", facts=FACTS)
    assert again["run"]["failed"] == {}
    assert again["values"] == alone["values"]


def test_what_the_disk_refuses_is_no_fault_of_an_item(tiny, items_file, tmp_path, monkeypatch):
    def append(self, record):
        raise OmnisinkError("could not be written: No space left on device")

    monkeypatch.setattr(study.Records, "append", append)
    with pytest.raises(OmnisinkError, match="No space left"):
        run_study(tiny, read_items(items_file, 2), PLAN, tmp_path / "run", facts=FACTS)


def test_a_measurement_that_is_not_finite_fails_its_item_and_not_the_study(tiny, items_file, tmp_path, monkeypatch):
    items, whole_units = read_items(items_file, 3), study.units

    def overflowing(measurements, *rest):
        for question, unit in whole_units(measurements, *rest):
            odd = measurements.runner.item.id == items[0].id and unit.name != "base"
            broken = dataclasses.replace(unit, run=lambda: {"deep": [{"er": float("nan")}]})
            yield question, broken if odd else unit

    monkeypatch.setattr(study, "units", overflowing)
    plan = Plan(questions=("values",), seeds=1, calibration=2, pruning_items=1)
    results = run_study(tiny, items, plan, tmp_path / "run", facts=FACTS)
    assert "a measurement is not a finite number" in results["run"]["failed"][items[0].id]
    assert results["baseline"]["items"] == 2


def test_weights_that_are_no_numbers_fail_every_item_in_one_line(tiny, items_file, tmp_path):
    broken = dataclasses.replace(tiny, model=copy.deepcopy(tiny.model))
    broken.model.model.layers[0].mlp.up_proj.weight.data.fill_(float("nan"))
    with pytest.raises(OmnisinkError, match="no item could be run|not finite|NaN"):
        run_study(broken, read_items(items_file, 2), PLAN, tmp_path / "run", facts=FACTS)


class Lengths:
    """A further question, as a file of one would be: how long are the items?"""

    @staticmethod
    def units(measurements, settings, calibration, index):
        yield Unit("length", lambda: {"length": measurements.runner.length, "index": index})

    @staticmethod
    def summarise(records, base, settings, calibration):
        return {"lengths": [r["length"] for r in records], "tokens": [r["tokens"] for r in base.values()]}

    @staticmethod
    def interpret(section):
        return [f"The longest item has {max(section['lengths'])} tokens."]

    @staticmethod
    def cost(settings, index):
        return 1.0


def test_a_further_question_is_an_entry_of_the_dict(tiny, items_file, tmp_path, monkeypatch):
    monkeypatch.setitem(QUESTIONS, "lengths", Lengths)
    assert parse_questions("lengths,values") == ("values", "lengths")
    plan = Plan(questions=("lengths",), seeds=1, calibration=2)
    results = run_study(tiny, read_items(items_file, 2), plan, tmp_path / "run", facts=FACTS)
    assert results["lengths"]["lengths"] == results["lengths"]["tokens"]
    assert len(results["lengths"]["lengths"]) == 2
    assert results["readings"] == {"lengths": [f"The longest item has {max(results['lengths']['tokens'])} tokens."]}
    (section,) = [one for one in sections_of(results) if one.name == "lengths"]
    assert list(section.readings) == results["readings"]["lengths"]


def test_a_record_that_was_changed_by_hand_is_named(tiny, items_file, tmp_path):
    plan = Plan(questions=("heads",), seeds=1, calibration=2, heads_items=1)
    items = read_items(items_file, 2)
    run_study(tiny, items, plan, tmp_path / "run", facts=FACTS)
    path = tmp_path / "run" / "records.jsonl"
    path.write_text(path.read_text().replace('"layer":2', '"layer":"two"'))
    with pytest.raises(OmnisinkError, match="record of item-0, heads, layer-2: layer must be a whole number"):
        run_study(tiny, items, plan, tmp_path / "run", facts=FACTS)
