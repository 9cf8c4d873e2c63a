"""``--json`` means one thing in every verb, and flags look like flags."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omnisink.cli.app import app
from omnisink.cli.tasks import tasks
from tests.cli.command import refused, run
from tests.evaluation.scored_runs import write_scores

COMMANDS = [*app.registered_commands, *tasks.registered_commands]
VERBS = {one.name or one.callback.__name__: one.callback for one in COMMANDS}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_prints_one_document_by_a_flag(verb: str) -> None:
    given = inspect.signature(VERBS[verb], eval_str=True).parameters["json"]
    kind, option = given.annotation.__args__[0], given.annotation.__metadata__[0]
    assert (kind, given.default, option.default) == (bool, False, "--json")
    assert option.help == "Print one JSON document and nothing else."


@pytest.mark.parametrize("words", [[], ["tasks"], *([verb] for verb in VERBS if verb not in ("show", "check"))])
def test_flags_in_help_take_no_value(words: list[str]) -> None:
    said = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"}).invoke(app, [*words, "--help"]).output
    assert re.search(r"--help +-h +Show this message", said)
    assert "bool" not in said.lower()
    assert not re.search(r"<\w|range|\[\d*<?=?x[<>]", said), (
        "types of Python, and ranges, are no way to type an option"
    )
    if words:
        assert re.search(r"--json +Print one JSON", said)


def test_of_clips(tmp_path: Path) -> None:
    said = run("synthav", "--out", str(tmp_path / "clips"), "--n", "3", "--json")
    found = json.loads(said.stdout)
    assert (found["questions"], found["split"], sum(found["categories"].values())) == (3, "test", 3)
    assert found["clips"] == len(list((tmp_path / "clips").glob("*.mp4")))


def test_of_an_export(tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "run", {"baseline": [True, False]})
    found = json.loads(run("export", str(folder), "--format", "lmms", "--json").stdout)
    assert found["files"]
    assert all(Path(path).is_file() for path in found["files"])


def test_a_file_after_the_flag_is_told_where_it_goes() -> None:
    for file in ("sinks.json", "-"):
        assert f"--json prints, and takes no file: {file} goes after --out" in refused(
            "find", "--text", "prompt.txt", "--json", file
        )
