"""Formats of annotations, each with its traps: what is read, what is left out, and what is refused, and how."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.rows import Left, Row
from omnisink.evaluation.tasks.task import find_task
from omnisink.extras import install
from tests.evaluation.benchmark_folders import FIXTURES, NAMES, lay_out, load, rows_of

FILES = {
    "avhbench": "QA.json",
    "daily-omni": "qa.json",
    "video-holmes": "test_Video-Holmes.json",
    "avut": "AV_Human_data.json",
    "cmm": "all_data_final_reorg.json",
    "music-avqa": "json/avqa-test.json",
    "intentbench": "qa.json",
    "omnibench": "dataset/batch-5_1142_20240817.jsonl",
    "video-mme": "videomme.jsonl",
    "lvbench": "video_info.meta.jsonl",
    "worldsense": "worldsense_qa.json",
    "mvbench": "json/action_antonym.json",
    "mlvu": "json/1_plotQA.json",
}
LINES = ("cmm", "omnibench", "video-mme", "lvbench")


def changed(name: str, folder: Path, change: Callable[[Any], Any]) -> Path:
    """Lay a fixture out, with its annotations changed afterwards."""
    file = lay_out(name, folder) / FILES[name]
    text = file.read_text(encoding="utf-8")
    data = [json.loads(line) for line in text.splitlines()] if name in LINES else json.loads(text)
    data = change(data) or data
    lines = "".join(json.dumps(row) + "\n" for row in data) if name in LINES else json.dumps(data)
    file.write_text(lines, encoding="utf-8")
    return folder


def first(key: str, value: Any) -> Callable[[Any], None]:
    """Change a value of the first row; None takes it out."""

    def change(data: Any) -> None:
        data[0][key] = value

    return change


def refusal(name: str, folder: Path, change: Callable[[Any], Any]) -> str:
    """Return what is said of the first row that cannot be asked; the others are."""
    try:
        found = find_task(name).read(changed(name, folder, change), allow_missing=True)
    except OmnisinkError as error:
        return str(error)
    assert found.instances
    first = found.bad[0]
    assert f"the first: {first.where}: {first.why}" in found.remarks[-1]
    return f"{first.where}: {first.why}"


# --- what is read ---


def test_avhbench_counts_questions_of_one_video_and_task(tmp_path: Path) -> None:
    ids = [i.id for i in load("avhbench", tmp_path)]
    assert ids[:2] == ["00001/Video-driven Audio Hallucination/1", "00001/Video-driven Audio Hallucination/2"]
    assert ids[2] == "00001/Audio-driven Video Hallucination/1"


def test_daily_omni_has_three_sets_of_keys(tmp_path: Path) -> None:
    a, b, c = load("daily-omni", tmp_path, "official")
    assert a.groups["content"] == ("Lifestyle",)
    assert "content" not in b.groups
    assert set(c.groups) == {"type", "category", "duration"}
    assert "Choices: ['A. To listen', 'B. To rest', 'C. To taste', 'D. To leave']" in b.text
    assert (a.text_first, a.cluster, b.cluster) == (True, "vid_a-1", "vid_a-1")


def test_worldsense_has_three_options_or_four(tmp_path: Path) -> None:
    found = load("worldsense", tmp_path)
    assert [len(i.answers) for i in found] == [4, 3, 4]
    assert [i.id for i in found] == ["AbCdEf/task0", "AbCdEf/task1", "-xyz/task0"]
    assert found[0].groups["audio_class"] == ("Music", "Speech")


def test_avut_leaves_out_what_is_blank(tmp_path: Path) -> None:
    found = find_task("avut").read(lay_out("avut", tmp_path))
    assert [i.id for i in found.instances] == ["454", "456"]
    assert found.left_out == [Left("AV_Human_data.json, row 2", "the right answer is a blank option")]
    assert found.instances[1].options == ("sea", "sky", "", "sun"), "a blank option that is wrong stays"


@pytest.mark.parametrize("name", ["a_b-C.mp4", "a_b-C_fullsize.mp4", "data/a_b-C_fullsize.mp4"])
def test_avut_videos_lie_where_hugging_face_has_them(name: str, tmp_path: Path) -> None:
    folder = lay_out("avut", tmp_path)
    (folder / "data" / "a_b-C.mp4").rename(folder / name)
    video = find_task("avut").load(folder)[0].video
    assert video is not None
    assert video.relative_to(folder.resolve()).as_posix() == name


def test_lvbench_takes_the_options_out_of_the_question(tmp_path: Path) -> None:
    a, b = load("lvbench", tmp_path)
    assert a.options == ("1636", "1366", "1363", "1633")
    assert a.groups["type"] == ("key information retrieval", "temporal grounding")
    assert b.text.startswith("Who leaves (by the door)?\nA. Anna\n")
    whole = load("lvbench", tmp_path, "official")[0].text
    assert whole == "What year appears first?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633"


def test_music_avqa_fills_its_places_in_order(tmp_path: Path) -> None:
    found = find_task("music-avqa").read(lay_out("music-avqa", tmp_path))
    a, b, c = found.instances
    assert b.text.startswith("Is the first sound coming from the left instrument?\n")
    assert len(a.answers) == 42
    assert {"left", "more than ten", "no", "yes", "ten", "acoustic_guitar"} < set(a.answers)
    assert (c.gold, c.groups) == ("more than ten", {"modality": ("Visual",), "type": ("Visual Counting",)})
    assert [left.why for left in found.left_out] == ["the benchmark has deleted this question"]


def test_cmm_has_video_alone_sound_alone_and_both(tmp_path: Path) -> None:
    a, _, c, _, e, _ = load("cmm", tmp_path)
    assert (a.video is not None, a.audio) == (True, False)
    assert (c.video, isinstance(c.audio, Path)) == (None, True)
    assert (e.video is not None, isinstance(e.audio, Path)) == (True, True)
    assert a.text == "Did you see tree in the video? Answer with yes or no."
    assert c.text == "Did you hear dog barking in the audio? Answer with yes or no.", "it is asked once"
    assert a.groups["level"] == ("object-level, visual-language",)


def test_two_rows_of_cmm_are_one_sample_though_their_files_have_other_names(tmp_path: Path) -> None:
    found = load("cmm", tmp_path)
    assert len({i.video or i.audio for i in found}) == 6
    assert [i.cluster for i in found] == [f"sample {n}" for n in (0, 0, 1, 1, 2, 2)]
    folder = changed("cmm", tmp_path, lambda rows: [*rows[:2], "no object", rows[3], *rows[4:]])
    assert [i.cluster[-1] for i in find_task("cmm").load(folder)] == ["0", "0", "1", "2", "2"], "places stay"


def test_omnibench_has_an_image_and_a_sound(tmp_path: Path) -> None:
    a, b = load("omnibench", tmp_path)
    assert a.video is None
    assert (a.gold, b.gold) == ("B", "A")
    assert a.image == tmp_path.resolve() / "mm_data/image/1_1.png"
    assert a.audio == tmp_path.resolve() / "mm_data/audio/1_1.mp3"


def test_intentbench_names_its_file_in_two_ways(tmp_path: Path) -> None:
    a, b, c = load("intentbench", tmp_path)
    assert [i.video.name for i in (a, b, c) if i.video] == ["1.mp4", "2.mp4", "3.mp4"]
    assert [i.gold for i in (a, b, c)] == ["B", "A,D", "yes"]
    assert [i.parser for i in (a, b, c)] == ["intent_choice", "intent_several", "intent_yes_no"]


def test_mlvu_leaves_generation_out(tmp_path: Path) -> None:
    found = find_task("mlvu").read(lay_out("mlvu", tmp_path))
    assert len(found.instances) == 7
    assert [left.where for left in found.left_out] == ["8_sub_scene.json, row 1", "9_summary.json, row 1"]


def test_mvbench_takes_videos_that_are_cut(tmp_path: Path) -> None:
    found = load("mvbench", tmp_path)
    assert len(found) == 20
    assert {len(i.groups["task"]) for i in found} == {1}
    assert all(i.audio is False for i in found)


def test_mvbench_refuses_a_video_that_is_not_cut(tmp_path: Path) -> None:
    folder = lay_out("mvbench", tmp_path)
    (folder / "star" / "Charades_v1_480").mkdir()
    (folder / "star" / "Charades_segment" / "action_sequence.mp4").rename(
        folder / "star" / "Charades_v1_480" / "action_sequence.mp4"
    )
    with pytest.raises(OmnisinkError, match=r"action_sequence\.json, row 1: .*1\.5 to 4\.0 s of star/Charades_v1_480"):
        find_task("mvbench").load(folder)


def test_mvbench_refuses_folders_of_frames(tmp_path: Path) -> None:
    folder = lay_out("mvbench", tmp_path)
    (folder / "tvqa" / "video_fps3_hq_segment" / "episodic_reasoning.mp4").unlink()
    (folder / "tvqa" / "frames_fps3_hq" / "episodic_reasoning.mp4").mkdir(parents=True)
    with pytest.raises(OmnisinkError, match=r"episodic_reasoning\.json, row 1"):
        find_task("mvbench").load(folder)


def test_a_task_of_mvbench_that_is_missing_is_told(tmp_path: Path) -> None:
    folder = lay_out("mvbench", tmp_path)
    (folder / "json" / "fine_grained_pose.json").unlink()
    with pytest.raises(OmnisinkError, match=r"json/fine_grained_pose\.json: there is no such file"):
        find_task("mvbench").load(folder)


def test_splits_are_files_of_their_own(tmp_path: Path) -> None:
    folder = lay_out("music-avqa", tmp_path)
    (folder / "json_update").mkdir()
    rows = json.loads((folder / "json" / "avqa-test.json").read_text(encoding="utf-8"))
    (folder / "json_update" / "avqa-test.json").write_text(json.dumps(rows[:1]), encoding="utf-8")
    assert len(find_task("music-avqa").load(folder)) == 3
    assert len(find_task("music-avqa").load(folder, split="test-updated")) == 1


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lay_out("video-mme", tmp_path)
    rows = [json.loads(line) for line in (folder / "videomme.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = find_task("video-mme").load(folder)
    (folder / "videomme.jsonl").unlink()
    file = folder / "videomme" / "test-00000-of-00001.parquet"
    file.parent.mkdir()
    file.write_bytes(b"PAR1")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(OmnisinkError, match=re.escape(f"needs pyarrow. Install with: {install('eval')}")):
            find_task("video-mme").load(folder)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:  # what is read without it is in the file of lines above
        return
    with pytest.raises(OmnisinkError, match="cannot be read as parquet"):
        find_task("video-mme").load(folder)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    assert find_task("video-mme").load(folder) == expected


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("avhbench", "label", "Maybe", "QA.json, row 1: the answer 'Maybe' is neither yes nor no"),
        ("avhbench", "text", " ", "QA.json, row 1: text must be text and not empty"),
        ("avhbench", "video_id", None, "QA.json, row 1: the row names no file"),
        ("avhbench", "video_id", "../../secret", "QA.json, row 1: videos/../../secret.mp4 leaves the data folder"),
        ("avhbench", "video_id", "a\0b", "is not the name of a file"),
        ("daily-omni", "Answer", "E", "qa.json, row 1: the answer 'E' is none of the 4 options"),
        ("daily-omni", "Choice", ["A. One"], "there must be two options at least"),
        ("daily-omni", "Choice", "A. One", "the options must be a list of texts"),
        ("daily-omni", "Choice", None, "qa.json, row 1: there are no options"),
        ("video-holmes", "Options", {"A": "x", "C": "y"}, "the options are not lettered A, B, C, ...: A, C"),
        ("cmm", "video_path", "/etc/passwd", "line 1: /etc/passwd leaves the data folder"),
        ("lvbench", "qa", [], "video_info.meta.jsonl, line 1: the video has no question"),
        ("lvbench", "qa", [{"uid": "1", "question": "What?\n(A) x\n(C) y", "answer": "A"}], "are not (A), (B), (C)"),
        ("music-avqa", "templ_values", "['x']", "templ_values must be a list of texts, written as JSON in a text"),
        ("music-avqa", "question_content", "Is <Object> there?", "has 1 places to fill, templ_values has 0"),
        ("music-avqa", "type", '["Audio"]', "type must be two texts"),
        ("music-avqa", "anser", None, "anser is missing"),
        ("intentbench", "problem_type", "essay", "problem_type is 'essay', which is none of multiple choice,"),
        ("intentbench", "solution", "B", "there is nothing in <answer> and </answer>"),
        ("music-avqa", "anser", "theremin", "the answer 'theremin' is none of the 42 words of the closed set"),
        ("intentbench", "problem_type", ["judge"], "problem_type is ['judge'], which is none of multiple choice,"),
        ("avhbench", "text", "\ud800?", "half of a surrogate pair, '\\ud800', stands in"),
        ("daily-omni", "video_id", {"a": 1}, "video_id must be a text or a number"),
        ("mlvu", "candidates", [1, 2], "1_plotQA.json, row 1: the options must be a list of texts"),
        ("omnibench", "answer", None, "line 1: answer is missing"),
    ],
)
def test_a_wrong_row_is_named(name: str, key: str, value: Any, message: str, tmp_path: Path) -> None:
    assert message in refusal(name, tmp_path, first(key, value))


@pytest.mark.parametrize(
    "name", [n for n in FILES if n not in ("worldsense", "lvbench", "avhbench", "mvbench", "mlvu")]
)
def test_an_id_that_is_there_twice_is_refused_where_the_file_has_ids(name: str, tmp_path: Path) -> None:
    folder = changed(name, tmp_path, lambda data: [data[0], *data])
    task = find_task(name)
    if "{index" in task.fields.get("id", ""):
        assert len(task.load(folder)) == len(rows_of(task, folder))
        return
    found = task.read(folder)
    if name == "music-avqa":
        assert (found.bad, found.instances[1].id) == ([], f"{found.instances[0].id}/2")
    else:
        assert "was used before, in " in found.bad[0].why


def test_rows_that_are_no_objects_are_counted(tmp_path: Path) -> None:
    found = find_task("daily-omni").read(changed("daily-omni", tmp_path, lambda data: [1, "two", *data]))
    assert [bad.where for bad in found.bad] == ["qa.json, row 1", "qa.json, row 2"]
    assert found.remarks == [
        "2 rows that cannot be asked are left out; the first: qa.json, row 1: not a JSON object but int; "
        "`omnisink tasks check` of daily-omni lists all"
    ]
    assert found.instances[0].id == "0002-vid_a-1", "the rows after them keep their places"


def test_worldsense_names_video_and_task(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        data["AbCdEf"]["task1"]["answer"] = "D"

    assert refusal("worldsense", tmp_path, change).startswith("worldsense_qa.json, AbCdEf, task1: the answer 'D'")


@pytest.mark.parametrize("content", [b"\xff", b"[1, 2", b"{}", b'{"a": 1', b"[" * 100_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_none_is_an_error_of_ours(name: str, content: bytes, tmp_path: Path) -> None:
    lay_out(name, tmp_path)
    (tmp_path / FILES[name]).write_bytes(content)
    try:
        found = find_task(name).read(tmp_path)
    except OmnisinkError:
        return
    assert name in ("mlvu", "mvbench"), "their other files are whole"
    assert found.bad


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = lay_out("daily-omni", tmp_path / "data")
    (tmp_path / "secret.mp4").write_bytes(b"content")
    video = folder / "Videos" / "_vidB" / "_vidB_video.mp4"
    video.unlink()
    video.symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(
        OmnisinkError, match=r"daily-omni: the link Videos/_vidB/_vidB_video\.mp4 leaves the data folder"
    ):
        find_task("daily-omni").load(folder)
    video.unlink()
    video.symlink_to(folder / "Videos" / "vid_a-1" / "vid_a-1_video.mp4")
    assert len(find_task("daily-omni").load(folder)) == 3, "a link inside is none out of it"


def test_fixtures_are_true_to_what_they_stand_for() -> None:
    """The traps are in the fixtures; a fixture without them would prove nothing."""
    assert "Explaination" in (FIXTURES / "daily-omni/qa.json").read_text(encoding="utf-8")
    assert '"anser"' in (FIXTURES / "music-avqa/json/avqa-test.json").read_text(encoding="utf-8")
    assert all(isinstance(o, Row) for o in find_task("cmm").outcomes(FIXTURES / "cmm", "test"))
