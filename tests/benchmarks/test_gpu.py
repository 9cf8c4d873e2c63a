"""The command for GPUs, tried on the CPU: its processes, its lines, its table and its record."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import StaticCache

from benchmarks.gpu import ROOT, check_maths, table
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.lines import BROKEN, Case, Line, Skip, run_cases
from benchmarks.gpu.options import Options
from benchmarks.gpu.run import Run
from benchmarks.gpu.shapes import TINY, measured_model, twin
from benchmarks.gpu.steps import Rewind, filled
from benchmarks.gpu.worker import comparing, compiling, families, functions, passes
from benchmarks.history import HISTORY, PAGE, append
from omnisink.verification.families import FAMILIES
from omnisink.verification.verify import Result

CPU = torch.device("cpu")


def command(*given: str, **surroundings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *given],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **surroundings},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_it_measures_in_a_process_of_its_own_and_records_no_trial(tmp_path):
    before = HISTORY.read_bytes()
    done = command(
        *("--quick", "--device", "cpu", "--shape", "tiny", "--only", "prefill,decode,graph", "--limit", "240"),
        *("--json", str(tmp_path / "out" / "gpu.json")),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    lines = {line["case"]: line for line in found["lines"]}
    assert list(lines) == [
        *("prefill 768", "prefill 4096", "decode eager, batch 1", "decode, CUDA graph captured by hand")
    ]
    for case in list(lines)[:3]:
        assert lines[case]["status"] == "measured"
        assert lines[case]["p20"] <= lines[case]["p50"] <= lines[case]["p80"]
        assert f"{lines[case]['p50']:.3f}" in done.stdout
    assert lines["decode, CUDA graph captured by hand"]["status"] == "refused"
    assert "need a CUDA device" in lines["decode, CUDA graph captured by hand"]["detail"]
    assert "prefill, decode, graph: in turn, none begins a case after" in done.stdout
    assert found["where"]["transformers"]
    assert HISTORY.read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = command("--quick", "--only", "prefill")
    assert done.returncode == 2
    assert "no cuda device can be used here" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_part_is_refused():
    done = command("--only", "prefill,sideways")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown part 'sideways'" in done.stderr


@pytest.mark.parametrize("list_", [functions, passes, comparing, compiling, families])
def test_every_check_holds_on_the_cpu(list_, tmp_path):
    options = Options(str(tmp_path / "lines"), "cpu", quick=True, deadline=1e12, share=(0, 12))
    run_cases(list_(CPU, options), options, lambda: True)
    lines = read(tmp_path / "lines")
    assert lines
    assert [line for line in lines if line["status"] not in ("passed", "skipped")] == []
    assert {line["case"] for line in lines if line["status"] == "skipped"} <= {"captured"}
    if list_ is families:
        assert [line["case"] for line in lines] == list(FAMILIES)[::12]


def _lossy(right):
    """Lose the last sink of a stream that has many; the first of two calls is the reference's."""
    calls = itertools.count()

    def wrong(*args, **given):
        marks = right(*args, **given)
        if next(calls) % 2 and int(marks.sum()) > 40:
            marks.flatten()[int(marks.flatten().nonzero()[-1])] = False
        return marks

    return wrong


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("massive_activation_sinks", _lossy),
        ("rotate", lambda right: lambda o, u, **k: right(o, u, **{**k, "tau": 0.101})),
        ("sink_direction", lambda right: lambda v, s, h: right(v, s, h) + 1e-5),
        ("attend_to_all", lambda right: lambda *a, **k: right(*a, **k) * 1.0001),
    ],
)
def test_a_wrong_function_fails_its_check(name, wrong, monkeypatch):
    monkeypatch.setattr(check_maths, name, wrong(getattr(check_maths, name)))
    check = {
        "massive_activation_sinks": check_maths.sinks,
        "rotate": check_maths.rotation,
        "sink_direction": check_maths.direction,
        "attend_to_all": check_maths.relaxed,
    }[name]
    with pytest.raises(AssertionError):
        check(CPU, torch.float32)


def read(path: Path) -> list[dict]:
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return [line for line in lines if line.pop("kind") == "line"]


def test_a_failure_does_not_stop_the_rest_and_a_broken_device_does(tmp_path):
    def fails() -> dict:
        raise AssertionError("so many tokens\nare wrong")

    def skips() -> dict:
        raise Skip("not here")

    cases = [
        *(Case("checks", "first", fails), Case("prefill", "second", fails), Case("checks", "third", skips)),
        *(Case("checks", "fourth", lambda: {"detail": "well"}), Case("prefill", "fifth", dict, needs=1e9)),
    ]
    options = Options(str(tmp_path / "lines"), deadline=1e12, done=())
    late = replace(options, deadline=2e9)
    run_cases(cases, late, lambda: True)
    lines = read(tmp_path / "lines")
    assert [(line["case"], line["status"], line["detail"]) for line in lines] == [
        ("first", "failed", "so many tokens"),
        ("second", "refused", "so many tokens"),
        ("third", "skipped", "not here"),
        ("fourth", "passed", "well"),
        ("fifth", "not run", "out of time"),
    ]
    with pytest.raises(SystemExit) as left:
        run_cases(cases, replace(options, done=("first",), results=str(tmp_path / "more")), lambda: False)
    assert left.value.code == BROKEN
    assert [line["case"] for line in read(tmp_path / "more")] == ["second"]


def test_what_a_process_leaves_open_is_settled_as_not_run(tmp_path, capsys):
    run = Run(Options(str(tmp_path / "gpu.lines"), deadline=1e12), 1)
    (tmp_path / "gpu.log").write_text("CUDA error: an illegal memory access\n")
    (tmp_path / "gpu.lines").write_text(
        '{"kind": "plan", "part": "checks", "case": "a"}\n{"kind": "plan", "part": "checks", "case": "b"}\n'
        '{"kind": "begin", "part": "checks", "case": "a"}\n{"kind": "begin", "pa'
    )
    run._drain()
    run._settle(["checks", "families"])
    assert [(line.case, line.status) for line in run.lines] == [
        *(("a", "not run"), ("b", "not run"), ("all of it", "not run"))
    ]
    assert "ended while it ran: its process broke down; gpu.log ends with: CUDA error" in capsys.readouterr().out


def test_a_twin_shares_the_weights_and_not_the_modules():
    model = measured_model("tiny", CPU)
    other = twin(model, 3)
    assert (len(other.model.layers), len(model.model.layers)) == (3, TINY["num_hidden_layers"])
    assert other.lm_head.weight is model.lm_head.weight
    assert other.model.layers[0] is not model.model.layers[0]
    assert other.config is not model.config


def test_a_rewound_cache_gives_the_same_step_again():
    model = measured_model("tiny", CPU)
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        cache = filled(model, ids, 24)
        assert isinstance(cache, StaticCache)
        rewind = Rewind(cache)
        steps = []
        for _ in range(4):  # more than there is room for
            steps.append([model(input_ids=ids[:, :1], past_key_values=cache).logits for _ in range(3)])
            rewind()
    assert all(torch.equal(a, b) for again in steps[1:] for a, b in zip(again, steps[0], strict=True))


def copy_without_gpu(path):
    """Copy the history, but not what GPUs have measured."""
    with HISTORY.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row["model"] != "gpu")


def test_the_table_of_the_docs_comes_from_the_history(tmp_path):
    page, history = tmp_path / "benchmarks.md", tmp_path / "history.csv"
    shutil.copy(PAGE, page)
    table.write(HISTORY, page)
    assert page.read_text() == PAGE.read_text(), "run `python -m benchmarks.gpu --record`, which writes the page"
    copy_without_gpu(history)
    where = {"date": "2026-01-02T03:04Z", "torch": "9", "triton": "8", "machine": "A GPU"}
    lines = [
        Line("prefill", "prefill 4096", "measured", 1.001, 1.2345, 1.3, 100.0, 11),
        Line("prefill", "memory 16384", "measured", 0.004, 0.004, 0.004, None, 1),
        Line("graph", "decode, CUDA graph captured by hand", "refused", detail="no"),
    ]
    append(table.rows(lines, earlier=True), history, where)
    append(table.rows([replace(lines[0], p50=1.0123), lines[1]], earlier=False), history, where)
    table.write(history, page)
    text = page.read_text()
    assert "| prefill 4096 | 1.234 (A GPU, 2026-01-02) | 0.98 | 1.012 | 1.001 to 1.300 | at most 1.020 |" in text
    assert "| memory 16384 | 0.40% (A GPU, 2026-01-02) |  | 0.40% |  | at most 1.00% |" in text
    assert "| decode, CUDA graph captured by hand |  | 1.0005 | not measured |" in text


def test_results_of_another_machine_are_recorded_in_the_history_and_both_pages(tmp_path, monkeypatch, capsys):
    names = {name: tmp_path / name for name in ("history.csv", "benchmarks.md", "models.md")}
    copy_without_gpu(names["history.csv"])
    for original in (PAGE, PAGE.with_name("models.md")):
        shutil.copy(original, names[original.name])
    monkeypatch.setattr("benchmarks.history.HISTORY", names["history.csv"])
    monkeypatch.setattr("benchmarks.history.PAGE", names["benchmarks.md"])
    family = FAMILIES["llama"]
    result = Result(family.name, family.title, family.example, family.modalities, family.expectation, "supported")
    result.backends = ("sdpa", "eager")
    found = {
        "shape": "7b",
        "where": {"date": "2026-01-02T03:04Z", "omnisink": "7", "commit": "abc", "torch": "9", "triton": "8"}
        | {"transformers": "5", "machine": "A GPU", "threads": 1, "load": 0, "device": "cuda", "python": "3"},
        "lines": [
            asdict(Line("prefill", "prefill 4096", "measured", 1.0, 1.0123, 1.3, 100.0, 11)),
            asdict(Line("families", "llama", "passed", data={"family": result.to_dict()})),
        ],
    }
    (tmp_path / "trial.json").write_text(json.dumps({**found, "shape": "tiny"}))
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    untouched = [path.read_bytes() for path in names.values()]
    assert main(["--record", str(tmp_path / "trial.json")]) == 0
    assert "this was a trial" in capsys.readouterr().err
    assert [path.read_bytes() for path in names.values()] == untouched
    assert main(["--record", str(tmp_path / "gpu.json"), "--before"]) == 0
    assert "1.012 (A GPU, 2026-01-02) | 0.98 | not measured" in names["benchmarks.md"].read_text()
    assert names["models.md"].read_bytes() == untouched[2]
    assert main(["--record", str(tmp_path / "gpu.json")]) == 0
    assert "| 0.98 | 1.012 | 1.000 to 1.300 | at most 1.020 | 100.00 ms | A GPU" in names["benchmarks.md"].read_text()
    with names["history.csv"].open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["commit"], last["triton"], last["model"], last["case"]) == ("abc", "8", "gpu", "prefill 4096")
    models = names["models.md"].read_text()
    assert "On a GPU: A GPU, 2026-01-02, with omnisink 7, torch 9, transformers 5." in models
    assert "| supported | sdpa, eager, flex_attention | sdpa, eager |  |" in models


def test_the_history_takes_a_new_column(tmp_path):
    path = tmp_path / "history.csv"
    append([{"case": "a", "p50": 1}], path, {"date": "d"})
    append([{"case": "b, c", "p50": 2}], path, {"date": "e", "triton": "3"})
    append([{"case": "f", "p50": 3}], path, {"date": "g"})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            *(["date", "case", "p50", "triton"], ["d", "a", "1", ""], ["e", "b, c", "2", "3"], ["g", "f", "3", ""])
        ]


def test_a_figure_beyond_its_target_is_marked():
    line = Line("prefill", "prefill 768", "measured", 1.0, 1.2, 1.3, 20.0, 9)
    assert "at most 1.100: NO" in table.line_text(line)
    assert "at most 1.100: yes" in table.line_text(replace(line, p50=1.1))
    assert "at most" not in table.line_text(replace(line, case="prefill 256"))
    assert "FAILED  why" in table.line_text(Line("checks", "a", "failed", detail="why"))
    assert Line(**asdict(line)) == line
