"""`omnisink compare` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import omnisink.report.write
from omnisink.cli.compare import compare
from omnisink.errors import OmnisinkError
from omnisink.extras import install
from tests.evaluation.scored_runs import write_scores

app = typer.Typer()
app.command()(compare)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    base = [i % 2 == 0 for i in range(20)]
    return write_scores(tmp_path / "run", {"baseline": base, "[outro]": [*[None] * 2, *[True] * 18]})


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, words), "--resamples", "199"], catch_exceptions=False)


def test_it_prints_the_verdict_first_and_the_next_command_last(run: Path) -> None:
    said = typed(run, "--no-page")
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    assert lines[0] == "SynthAV: yes, [outro] is better than baseline."
    assert any(line.split()[:2] == ["[outro]", "better"] and "100.0%" in line for line in lines)
    assert any(line.startswith("note: [outro]: 2 errors, left out and not scored as wrong.") for line in lines)
    assert lines[-1] == f"  omnisink eval --seed 1 --out {run}-seed-1"
    written = {path.name for path in (run / "comparison").iterdir()}
    assert written == {"comparison.md", "comparison.tex", "comparison.json", "questions.csv"}


def test_json_is_one_document(run: Path, tmp_path: Path) -> None:
    said = typed(run, "--json", "--no-page", "--out", tmp_path / "else")
    assert json.loads(said.stdout) == json.loads((tmp_path / "else" / "comparison.json").read_text(encoding="utf-8"))


def test_the_page_is_drawn_where_it_can_be(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(run, "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "page.html").exists()
    monkeypatch.setattr(omnisink.report.write, "missing_libraries", lambda: ["altair"])
    said = typed(run, "--out", tmp_path / "bare")
    assert said.exit_code == 0
    assert f"no page was drawn without altair; {install('report')}" in said.stderr
    assert not (tmp_path / "bare" / "page.html").exists()


def test_a_method_alone_is_said_to_be(tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "run", {"baseline": [True, False]})
    assert "there is one method only, and nothing to compare it with." in typed(folder, "--no-page").stdout


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="holds no run"):
        typed(tmp_path)
