"""Runs as lmms-eval's samples and as a dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from omnisink.cli.export import export
from omnisink.errors import OmnisinkError
from omnisink.evaluation.export import export_lmms, export_parquet
from omnisink.evaluation.tasks.instance import Instance
from omnisink.extras import install
from tests.evaluation.scored_runs import failed, manifest, record, write

METHODS = ("baseline", "outro:gamma=0.3")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    groups = {"category": ["audio"], "kind": ["word"]}
    rows = [
        record("b", METHODS[0], False, groups=groups, margin=-0.5, audio_tokens=100),
        record("a", METHODS[0], True, margin=None),
        failed("c", METHODS[0], margin=None),
        failed("a", METHODS[1], margin=None),
        record("a", METHODS[1], True, attempt=1, margin=0.5),
        record("b", METHODS[1], 0.5, margin=None, parsed=None, text="none of them"),
    ]
    return write(tmp_path / "run", manifest(METHODS, 3, task={"breakdowns": ["category"]}), rows)


def question(name: str) -> Instance:
    return Instance(name, f"What of {name}?", "B", ("A", "B"), "letter", name)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_samples_are_those_of_lmms_eval(run: Path, tmp_path: Path) -> None:
    written = export_lmms(run, tmp_path / "out")
    assert [p.relative_to(tmp_path / "out").as_posix() for p in written] == [
        "baseline/20261125_100000_samples_synthav.jsonl",
        "baseline/20261125_100000_results.json",
        "outro_gamma_0.3/20261125_100000_samples_synthav.jsonl",
        "outro_gamma_0.3/20261125_100000_results.json",
    ]
    first, second = lines(written[0])
    assert (first["doc_id"], first["id"], first["target"], first["filtered_resps"]) == (0, "a", "B", "B")
    assert first["synthav_score"] == {"score": 1.0, "cluster": "clip-a", "pred": "B", "answer": "B"}
    assert first["token_counts"] == [{"input_tokens": 300, "output_tokens": 3}]
    assert (second["doc_id"], second["synthav_score"]["score"], second["unparsed"]) == (1, 0.0, 0.0)
    results = json.loads(written[1].read_text(encoding="utf-8"))
    assert results["results"]["synthav"]["synthav_score,none"] == 0.5
    assert results["results"]["synthav"]["errors,none"] == 1
    assert results["n-samples"]["synthav"] == {"original": 3, "effective": 2}
    last = lines(written[2])
    assert [(s["filtered_resps"], s["unparsed"]) for s in last] == [("B", 0.0), ("none of them", 1.0)]


def test_with_the_questions_the_numbers_are_those_of_the_annotations(run: Path, tmp_path: Path) -> None:
    written = export_lmms(run, tmp_path / "out", [question(name) for name in "cba"])
    assert [(s["doc_id"], s["input"]) for s in lines(written[0])] == [(1, "What of b?"), (2, "What of a?")]
    with pytest.raises(OmnisinkError, match="an answer to c, which is not one"):
        export_lmms(run, tmp_path / "out", [question(name) for name in "ab"])


def test_the_dataset_has_a_card_and_a_file_a_method(run: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    written = export_parquet(run, tmp_path / "out")
    assert [p.relative_to(tmp_path / "out").as_posix() for p in written] == [
        "data/baseline-00000-of-00001.parquet",
        "data/outro_gamma_0.3-00000-of-00001.parquet",
        "manifest.json",
        "README.md",
    ]
    tables = [parquet.read_table(path) for path in written[:2]]
    assert tables[0].schema == tables[1].schema
    rows = tables[0].to_pylist()
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert [row["right"] for row in rows] == [1.0, 0.0, None]
    assert rows[1]["group_category"] == ["audio"]
    assert rows[0]["group_category"] == []
    assert rows[2]["error"] == "the video could not be read"
    assert [row["attempt"] for row in tables[1].to_pylist()] == [1, 0]
    assert [row["right"] for row in tables[1].to_pylist()] == [1.0, 0.5]
    head, body = written[3].read_text(encoding="utf-8").split("---\n", 2)[1:]
    configs = yaml.safe_load(head)["configs"]
    assert [c["config_name"] for c in configs] == ["baseline", "outro_gamma_0.3"]
    assert all((tmp_path / "out" / c["data_files"][0]["path"]).is_file() for c in configs)
    assert "| outro:gamma=0.3 | outro\\_gamma\\_0.3 |" in body
    assert "| 2 | 1 | 50.00% |" in body


def test_pyarrow_is_named_where_it_is_missing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(OmnisinkError, match=re.escape(install("eval"))):
        export_parquet(run, tmp_path / "out")


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="holds no run"):
        export_lmms(tmp_path, tmp_path / "out")
    empty = write(tmp_path / "empty", manifest(METHODS, 3), [])
    with pytest.raises(OmnisinkError, match="nothing has been answered"):
        export_parquet(empty, tmp_path / "out")
    alike = write(tmp_path / "alike", manifest(METHODS, 1), [record("a", m, margin=None) for m in ("a:b", "a=b")])
    with pytest.raises(OmnisinkError, match="same name as a file"):
        export_lmms(alike, tmp_path / "out")


def test_the_verb(run: Path) -> None:
    app = typer.Typer()
    app.command()(export)

    def typed(*words: str):
        return CliRunner().invoke(app, [str(run), *words])

    assert typed().exit_code == 0
    assert (run / "parquet" / "README.md").is_file()
    said = typed("--format", "lmms")
    assert said.exit_code == 0
    assert len(said.stdout.splitlines()) == 4
    assert "lmms or parquet" in str(typed("--format", "csv").exception)
    assert "--data is for" in str(typed("--data", "x").exception)


@pytest.mark.parametrize(
    "name",
    ["../up", "/abs", "a/b", "a\\b", "C:\\x", "nul", "COM1.txt", "con", ".hidden", "trailing.", "-x", "x" * 300,
     "é" * 200, "a\0b", "\ud800x"],
)  # fmt: skip
@pytest.mark.parametrize("write_to", [export_lmms, export_parquet])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str, write_to: Callable[..., list[Path]]) -> None:
    folder = write(tmp_path / "run", manifest((name,), 1, task={"name": f"../{name}.yaml"[:300]}), [record("a", name)])
    written = write_to(folder, tmp_path / "in" / "out")
    assert all(path.resolve().is_relative_to(tmp_path / "in" / "out") for path in written)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "in"}
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["out"]
    for part in (part for path in written for part in path.relative_to(tmp_path / "in" / "out").parts):
        assert len(part.encode()) < 200
        assert not re.match(r"(?i)(con|nul|com1)(\.|$)", part)
        assert not part.startswith((".", "-"))
        assert not part.endswith(".")


@pytest.mark.parametrize("name", ["..", ".", "...", "", "/", "\\", "\u202e", "._."])
@pytest.mark.parametrize("write_to", [export_lmms, export_parquet])
def test_a_name_of_nothing_is_refused(tmp_path: Path, name: str, write_to: Callable[..., list[Path]]) -> None:
    folder = write(tmp_path / "run", manifest((name,), 1), [record("a", name)])
    with pytest.raises(OmnisinkError, match="cannot be that of a file"):
        write_to(folder, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_names_that_differ_in_capitals_alone_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", manifest(("Outro", "outro"), 1), [record("a", "Outro"), record("a", "outro")])
    with pytest.raises(OmnisinkError, match="two methods have the same name as a file"):
        export_parquet(folder, tmp_path / "out")


def test_the_card_shows_names_and_interprets_none(tmp_path: Path) -> None:
    bad = "# </script><img src=x> [a](b) | `c`\n\n# second"
    made = manifest((bad,), 1, task={"title": bad, "split": bad}) | {"model": {"name": bad}}
    folder = write(tmp_path / "run", made, [record("a", bad)])
    card = export_parquet(folder, tmp_path / "out")[-1].read_text(encoding="utf-8").split("---", 2)[2]
    assert "\\<img src=x\\>" in card
    for raw in ("<img", "</script", "[a](b)", " `c`", "\n# second"):
        assert raw not in card.replace(f"\\{raw[0]}", "")
    assert sum(line.startswith("#") for line in card.splitlines()) == 1
