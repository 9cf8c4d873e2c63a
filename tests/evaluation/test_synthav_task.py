"""SynthAV as a task: the questions that SmolOmni's own results are made of, with clips that are rendered as needed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.answers import parse
from omnisink.evaluation.tasks.loaders import synthav as synthav_task
from omnisink.evaluation.tasks.task import find_task
from omnisink.questions.choices import with_choices
from omnisink.synthav.dataset import draw_split
from training.score import asked
from training.score import parse as trained_parse


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cache of the tests apart, and render in no time."""

    def render(scene: Any, path: Path) -> None:
        path.write_bytes(scene.name.encode())

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("omnisink.synthav.render.render", render)
    return tmp_path / "cache"


@pytest.mark.parametrize("split", ["test", "tune"])
def test_questions_are_asked_as_in_training(split: Any) -> None:
    questions = [q for _, questions in draw_split(split, 60) for q in questions]
    loaded = find_task("synthav").load(split=split, limit=60)
    assert len(loaded) == 60
    for question, instance in zip(questions, loaded, strict=True):
        assert instance.text == with_choices(asked(question), question.choices)
        assert instance.gold == question.answer
        assert instance.cluster == question.clip
        assert instance.groups["category"] == (question.category,)
        assert instance.groups["held_out"] == (str(question.held_out).lower(),)
        assert (instance.audio, instance.max_new_tokens) == (None, 3)
        for said in ("A", "b", "yes", "No.", "B. circle", "perhaps"):
            assert parse(said, instance) == trained_parse(said, question)


def test_a_limit_is_a_draw_of_its_own_over_the_categories() -> None:
    found = find_task("synthav").load(limit=13)
    assert Counter(i.groups["category"][0] for i in found) == {
        "visual": 4,
        "audio": 3,
        "existence": 1,
        "cross-modal": 3,
        "temporal": 2,
    }


def test_the_whole_split_is_what_has_been_reported() -> None:
    found = find_task("synthav").load()
    assert len(found) == synthav_task.WHOLE == 1200
    assert len({i.id for i in found}) == 1200
    few = {i.id: i.text for i in find_task("synthav").load(limit=150)}
    both = {i.id: i.text for i in found if i.id in few}
    assert both, "a draw of fewer shares questions with the whole"
    assert all(few[name] == text for name, text in both.items()), "the same id is the same question"


def test_clips_are_rendered_once_and_told_of(cache: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    found = find_task("synthav").load(limit=5, progress=lambda *call: calls.append(call))
    clips = {i.video for i in found}
    assert calls[-1] == (len(clips), len(clips), "clips rendered")
    assert all(clip and clip.is_relative_to(cache.resolve() / "omnisink" / "synthav") for clip in clips)
    calls.clear()
    assert find_task("synthav").load(limit=5, progress=lambda *call: calls.append(call)) == found
    assert calls == []
    assert not list(cache.rglob("*.part"))


def test_clips_of_another_generator_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    before = synthav_task.cache_folder("test")
    monkeypatch.setattr(synthav_task, "_version", lambda: "other")
    assert synthav_task.cache_folder("test") != before


def test_the_cache_is_below_home_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert synthav_task.cache_folder("tune").is_relative_to(Path.home() / ".cache" / "omnisink" / "synthav")


def test_a_clip_that_fails_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(scene: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OmnisinkError("espeak-ng is not installed")

    monkeypatch.setattr("omnisink.synthav.render.render", render)
    with pytest.raises(OmnisinkError, match="espeak-ng"):
        find_task("synthav").load(limit=1)
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_a_cache_that_cannot_be_is_an_error(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(OmnisinkError, match="could not be made or written to"):
        find_task("synthav").load(limit=1)


def test_a_folder_of_clips(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    drawn = [q for _, questions in draw_split("test", 20) for q in questions]
    rows = [{"video": f"{q.clip}.mp4", **q.to_dict()} for q in drawn]
    (folder / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    for row in rows:
        (folder / row["video"]).write_bytes(b"content")
    found = find_task("synthav").load(folder, limit=8)
    rendered = find_task("synthav").load(limit=20)
    assert [(i.id, i.text, i.gold) for i in found] == [(i.id, i.text, i.gold) for i in rendered[:8]]
    assert found[0].video == (folder / rows[0]["video"]).resolve()
