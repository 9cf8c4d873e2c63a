"""Files of a comparison: nothing in them is markup, a command or a formula that did not come from us."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.comparing.tables import latex, markdown, tables_of, write_tables
from tests.evaluation.scored_runs import FEW, failed, manifest, record, write, write_scores

HOSTILE = "a|b\n<script>alert(1)</script> \\input{x} 50% $x$ _i_ #1 ~^&{[*]}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two tasks, the second with hostile texts in every place."""
    folder = tmp_path_factory.mktemp("runs")
    base = [i % 2 == 0 for i in range(40)]
    plain = write_scores(folder / "a", {"baseline": base, "outro": [True] * 40})
    rows = []
    for i in range(12):
        more = {"groups": {HOSTILE: [HOSTILE]}, "cluster": HOSTILE}
        rows.append(record(f"=cmd {i}", "baseline", False, **more | {"text": "\ud800@x"}))
        rows.append(record(f"=cmd {i}", HOSTILE, True, **more | {"text": "+1 or 2"}))
    rows.append(failed("last", "baseline"))
    rows.append(failed("last", HOSTILE, attempt=1))
    about = manifest(("baseline", HOSTILE), 13, task={"name": "x", "title": HOSTILE, "metric": HOSTILE})
    (folder / "b").mkdir()
    hostile = write(folder / "b" / "run", about, rows)
    return compare([plain, hostile], resamples=FEW)


def test_markdown_tables_are_whole_and_hold_no_markup(results: dict[str, Any]) -> None:
    text = markdown(results)
    assert "<script" not in text.replace(r"\<", "")
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == len(tables_of(results)) == 3
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.split("\n")}) == 1
    assert "- SynthAV, outro: accuracy is higher than with baseline" in text
    assert "| SynthAV | outro | 100.0% (92.8% to 100.0%) | +50.0 (+" in text


def test_latex_tables_hold_no_command_of_others(results: dict[str, Any]) -> None:
    text = latex(results)
    assert r"\input" not in re.sub(r"(?m)^%.*$", "", text)
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == len(tables_of(results))
    assert all(line.startswith("%") for line in text.split("\n\n")[0].splitlines())
    body = [line for line in text.splitlines() if line.endswith(r" \\")]
    for line in body:
        assert not line.lstrip().startswith("["), "it would be read as an option of the row before"
        bare = re.sub(r"\\[\\&%$#_{}]|\\text\w+\{\}|\$-\$|\$[<>]\$|\$\\(?:geq|pm)\$|\{\[\}", "", line)
        assert not re.search(r"[\\%$#_{}~^]", bare), line
    assert r"a\textbar{}b" in text


def test_every_row_in_latex_has_all_its_cells(results: dict[str, Any]) -> None:
    counts = {line.count(" & ") for line in latex(results).splitlines() if line.endswith(r" \\")}
    assert counts == {len(table.heads) - 1 for table in tables_of(results)}


def test_files_are_written_and_replaced(results: dict[str, Any], tmp_path: Path) -> None:
    for _ in range(2):
        written = write_tables(results, tmp_path / "deep" / "out")
    assert [path.name for path in written] == ["comparison.md", "comparison.tex", "comparison.json", "questions.csv"]
    assert json.loads(written[2].read_text(encoding="utf-8"))["verdicts"][0] == results["verdicts"][0]
    with written[3].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["outcome"] for row in rows] == ["win"] * 20 + ["win"] * 12 + ["error"]
    for row in rows:
        assert not any(value.lstrip().startswith(("=", "+", "-", "@")) for value in row.values())
    assert rows[20]["id"] == "'=cmd 0"
    assert rows[20]["text"] == "'+1 or 2"


def test_a_folder_that_cannot_be_written_is_named(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OmnisinkError, match="file could not be written"):
        write_tables(results, tmp_path / "file")


def test_several_seeds_have_a_table(tmp_path: Path) -> None:
    folders = [
        write_scores(tmp_path / f"{i}", {"baseline": [False] * 8, "outro": [True] * i + [False] * (8 - i)}, seed=i)
        for i in (2, 4)
    ]
    text = markdown(compare(folders, resamples=FEW))
    assert "| SynthAV | outro | 2 | 37.5% ± 17.7 | +37.5 ± 17.7 |" in text
    assert "## SynthAV" in text
