"""The commands that repeat the paper's evaluation, typed as the page has them, with a tiny model and made-up data."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from omnisink.evaluation.running.parts import read_parts
from tests.cli.command import run
from tests.evaluation.benchmark_folders import lay_out
from tests.models.conftest import seeded

ROOT = Path(__file__).parents[2]
METHODS = {"baseline", "outro", "outro:rotate", "outro:relax", "outro:random"}


def commands() -> list[str]:
    """Return the lines of the section's shell blocks, in order."""
    page = (ROOT / "docs" / "eval.md").read_text(encoding="utf-8")
    section = page.split("## The paper's setting\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def fetch(words: list[str], clip: Path) -> None:
    """Stand in for `hf download`: lay out what is on the Hub, the videos in an archive."""
    if "--local-dir" not in words:
        assert words == ["hf", "download", "Qwen/Qwen2.5-Omni-3B"]
        return
    assert words[2:5] == ["liarliar/Daily-Omni", "--repo-type", "dataset"]
    folder = lay_out("daily-omni", Path(words[-1]), clip.read_bytes())
    shutil.make_archive(str(folder / "Videos"), "tar", folder, "Videos")
    shutil.rmtree(folder / "Videos")


@pytest.mark.slow
def test_the_papers_setting_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out("avhbench", Path("AVHBench"), clip.read_bytes())
    here = {"Qwen/Qwen2.5-Omni-3B": str(seeded("qwen2_5_omni", tmp_path / "tiny")), "cuda": "cpu"}
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
    typed = []
    for line in commands():
        words = shlex.split(line, comments=True)
        typed.append(words[0])
        if words[0] == "pip":
            assert set(re.findall(r"\w+", words[2])) <= extras
        elif words[0] == "hf":
            fetch(words, clip)
        elif words[0] == "tar":
            subprocess.run(words, check=True)
        else:
            assert words[0] == "omnisink"
            done = run(*(here.get(word, word) for word in words[1:]))
            assert done.returncode == 0, (line, done.stderr)
            assert "check" not in words or re.search(r" [34] questions, 2 files, 0 errors", done.stdout), done.stdout
    assert typed.count("omnisink") == 7
    for folder, count, methods in (
        ("first", 4, {"baseline", "outro"}),
        ("avhbench-3b", 4, METHODS),
        ("daily-omni-3b", 3, METHODS),
    ):
        records = read_parts(Path("runs") / folder)
        assert {r["method"] for r in records} == methods
        assert len(records) == count * len(methods)
        assert all(r["error"] is None and r["audio_tokens"] and r["video_tokens"] for r in records)
        assert {r["new_tokens"] for r in records} == {1}
    compared = Path("runs/3b/comparison.md").read_text(encoding="utf-8")
    assert "AVHBench" in compared
    assert "Daily-Omni" in compared
