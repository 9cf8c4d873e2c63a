"""Checking a folder: everything that is wrong is found at once, before a model is loaded."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.check import Check, Problem, check_task
from omnisink.evaluation.tasks.task import find_task
from tests.cli.command import run
from tests.evaluation.benchmark_folders import lay_out
from tests.media.media_files import sine, sound, video


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Make a clip with sound, one without, a sound and a picture."""
    folder = tmp_path_factory.mktemp("clips")
    video(folder / "loud.mp4", 5, audio=sine(440, 0.2, 16_000))
    video(folder / "mute.mp4", 5)
    sound(folder / "tone.wav", sine(440, 0.2, 16_000)[None], 16_000)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "black.png")
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


def errors(found: Check) -> list[tuple[str, str]]:
    return [(p.where, p.what) for p in found.problems if p.severity == "error"]


def test_a_folder_that_is_right(clips: dict[str, bytes], tmp_path: Path) -> None:
    folder = lay_out("avhbench", tmp_path, clips["loud"])
    calls: list[tuple[int, int, str]] = []
    found = check_task(find_task("avhbench"), folder, progress=lambda *call: calls.append(call))
    assert errors(found) == []
    assert (found.questions, found.files, found.errors) == (4, 2, 0)
    assert found.left_out == {"a caption is scored by other means than a yes or no": 1}
    assert calls == [(1, 2, "files opened"), (2, 2, "files opened")], "each file is opened once"


def test_counts_that_differ_are_warnings(clips: dict[str, bytes], tmp_path: Path) -> None:
    found = check_task(find_task("avhbench"), lay_out("avhbench", tmp_path, clips["loud"]))
    assert Problem("warning", "avhbench", "questions: 4, and 5,302 are published") in found.problems
    assert Problem("warning", "avhbench", "videos: 2, and 2,092 are published") in found.problems
    assert (
        Problem("warning", "avhbench", "questions of task 'AV Matching': 1, and 1,876 are published") in found.problems
    )


def test_everything_that_is_wrong_is_found_at_once(clips: dict[str, bytes], tmp_path: Path) -> None:
    folder = lay_out("avhbench", tmp_path / "data", clips["loud"])
    rows = json.loads((folder / "QA.json").read_text(encoding="utf-8"))
    more = [
        {**rows[0], "video_id": name} for name in ("gone", "empty", "text", "short", "mute", "wav", "../x", "link")
    ]
    wrong = [{**rows[0], "label": "Perhaps"}, {"video_id": "1"}, "nothing"]
    (folder / "QA.json").write_text(json.dumps([*rows, *more, *wrong]), encoding="utf-8")
    videos = folder / "videos"
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_bytes(b"This is no film.")
    (videos / "short.mp4").write_bytes(clips["loud"][: len(clips["loud"]) // 2])
    (videos / "mute.mp4").write_bytes(clips["mute"])
    (videos / "wav.mp4").write_bytes(clips["tone"])
    (tmp_path / "secret.mp4").write_bytes(clips["loud"])
    (videos / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    found = dict(errors(check_task(find_task("avhbench"), folder)))
    assert found["QA.json, row 14"] == "the answer 'Perhaps' is neither yes nor no"
    assert found["QA.json, row 15"] == "text is missing"
    assert found["QA.json, row 16"] == "not a JSON object but str"
    assert found["videos/gone.mp4"] == "there is no such file (asked about in QA.json, row 6)"
    assert found["videos/empty.mp4"].startswith("the file is empty")
    assert found["videos/text.mp4"].startswith("not a media file")
    assert found["videos/short.mp4"].startswith("the file is cut off")
    assert found["videos/mute.mp4"].startswith("has no sound")
    assert found["videos/wav.mp4"].startswith("has no video")
    assert "leaves the data folder" in found["QA.json, row 12"]
    assert "leaves the data folder" in found["videos/link.mp4"]
    assert len(found) == 11


def test_an_id_that_is_there_twice(clips: dict[str, bytes], tmp_path: Path) -> None:
    folder = lay_out("avut", tmp_path, clips["loud"])
    rows = json.loads((folder / "AV_Human_data.json").read_text(encoding="utf-8"))
    (folder / "AV_Human_data.json").write_text(json.dumps([*rows, rows[0]]), encoding="utf-8")
    found = check_task(find_task("avut"), folder)
    assert errors(found) == [
        ("AV_Human_data.json, row 4", "the id '454' was used before, in AV_Human_data.json, row 1")
    ]
    assert found.left_out == {"the right answer is a blank option": 1}
    (remark,) = found.remarks
    assert remark == "1 row is left out: the right answer is a blank option; the first: AV_Human_data.json, row 2"


def test_sound_is_not_missed_where_it_is_not_asked_about(clips: dict[str, bytes], tmp_path: Path) -> None:
    folder = lay_out("intentbench", tmp_path, clips["mute"])
    assert errors(check_task(find_task("intentbench"), folder)) == []
    loaded = find_task("intentbench").load(folder)
    assert all(i.audio is False and not i.text.startswith("Here is a video") for i in loaded)
    (folder / "videos" / "social" / "1.mp4").write_bytes(clips["loud"])
    assert [i.audio for i in find_task("intentbench").load(folder)] == [None, False, False]


def test_images_and_sounds(clips: dict[str, bytes], tmp_path: Path) -> None:
    folder = lay_out("omnibench", tmp_path, clips["tone"])
    found = dict(errors(check_task(find_task("omnibench"), folder)))
    assert set(found) == {"mm_data/image/1_1.png", "mm_data/image/2.jpg"}
    for name in found:
        (folder / name).write_bytes(clips["black"])
    (folder / "mm_data/audio/1_1.mp3").write_bytes(clips["mute"])
    found = dict(errors(check_task(find_task("omnibench"), folder)))
    assert list(found) == ["mm_data/audio/1_1.mp3"]
    assert found["mm_data/audio/1_1.mp3"].startswith("has no sound")


def test_no_annotations_is_one_error_and_no_counts(tmp_path: Path) -> None:
    found = check_task(find_task("avhbench"), tmp_path)
    assert [p.severity for p in found.problems] == ["error"]
    assert "the annotations of avhbench are not there" in found.problems[0].what


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OmnisinkError, match="there is no such folder"):
        check_task(find_task("avhbench"), tmp_path / "nothing")
    with pytest.raises(OmnisinkError, match="needs its data"):
        check_task(find_task("avhbench"))
    with pytest.raises(OmnisinkError, match="needs no folder"):
        check_task(find_task("synthav"))


def test_the_cover_of_a_song_is_no_video(clips: dict[str, bytes], tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        cover = container.add_stream("png", rate=1, width=8, height=8, pix_fmt="rgb24")
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(sine(440, 0.5, 16_000)[None].astype(np.float32), "fltp", "mono")
        frame.rate = 16_000
        picture = av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), "rgb24")
        for packet in (*cover.encode(picture), *cover.encode(), *stream.encode(frame), *stream.encode()):
            container.mux(packet)
    song = (tmp_path / "song.m4a").read_bytes()
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"question": "Is it?", "answer": "yes", "video": "song.m4a"}), encoding="utf-8")
    ((where, what),) = errors(check_task(find_task(file)))
    assert where == "song.m4a"
    assert what.startswith("has no video")
    file.write_text(json.dumps({"question": "Is it?", "answer": "yes", "audio": "song.m4a"}), encoding="utf-8")
    assert errors(check_task(find_task(file))) == []
    found = check_task(find_task("avhbench"), lay_out("avhbench", tmp_path / "data", song))
    assert {what.split(" (")[0] for _, what in errors(found)} == {"has no video"}


def test_a_users_own_file(clips: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clips["mute"])
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"question": "Is it?", "answer": "yes", "video": "a.mp4"}) + "\n", encoding="utf-8")
    found = check_task(find_task(file))
    assert [(p.severity, p.where) for p in found.problems] == [("warning", "a.mp4")]
    (tmp_path / "a.mp4").write_bytes(b"no film")
    assert errors(check_task(find_task(file)))[0][0] == "a.mp4"
    rows = ["nothing", '{"id": "t", "text": "A passage."}', '{"question": "Is it?", "answer": "no"}', '{"id": "q"}']
    file.write_text("\n".join(rows), encoding="utf-8")
    found = check_task(find_task(file))
    assert [where for where, _ in errors(found)] == ["own.jsonl:1", "own.jsonl:2", "own.jsonl:4"]
    assert "it is not JSON" in errors(found)[0][1]
    assert found.questions == 1
    file.write_text("\n", encoding="utf-8")
    assert "no item" in errors(check_task(find_task(file)))[0][1]
    with pytest.raises(OmnisinkError, match="no item"):
        find_task(file).load()


# --- the command line ---


def test_the_verb_lists_and_shows_tasks() -> None:
    listed = json.loads(run("tasks", "--json").stdout)
    assert listed[0]["name"] == "synthav"
    assert {"licence", "size", "sources", "layout", "protocols"} <= listed[1].keys()
    shown = run("tasks", "show", "daily-omni").stdout
    assert "Videos/<video_id>/<video_id>_video.mp4" in shown
    assert "options without their letters" in " ".join(shown.split())
    assert "avhbench" in run("tasks").stdout


def test_the_verb_says_what_is_wrong_by_its_exit_status(clips: dict[str, bytes], tmp_path: Path) -> None:
    folder = lay_out("avhbench", tmp_path, clips["loud"])
    done = run("tasks", "check", "avhbench", "--data", str(folder))
    assert done.returncode == 0, done.stderr
    assert "avhbench, test: 4 questions, 2 files, 0 errors, 5 warnings" in done.stdout
    (folder / "videos" / "00001.mp4").unlink()
    done = run("tasks", "check", "avhbench", "--data", str(folder), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"] == 1
    refused = run("tasks", "check", "nothing")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("omnisink: there is no task 'nothing'")


def test_the_verb_imports_nothing_heavy_for_a_list() -> None:
    code = (
        "import sys; from omnisink.evaluation.tasks.task import find_task, task_names\n"
        "[find_task(name) for name in task_names()]\n"
        "print(*[m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_picture_that_no_model_takes_is_an_error(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("L", (10, 3000), level) for level in (0, 90, 200)]
    name = "long.png" if kind == "image" else "long.gif"
    frames[0].save(tmp_path / name, **({} if kind == "image" else {"save_all": True, "append_images": frames[1:]}))
    file = tmp_path / "own.jsonl"
    row = {"question": "Is it?", "answer": "yes", kind: name, "audio": False}
    file.write_text(json.dumps(row), encoding="utf-8")
    ((where, what),) = errors(check_task(find_task(file)))
    assert where == name
    assert "a picture of 10 x 3000 pixels is too long" in what


def test_a_video_without_a_decoder_and_absurd_sound_are_errors(clips: dict[str, bytes], tmp_path: Path) -> None:
    channels, data = 63, bytes(63 * 100)
    head = struct.pack("<IHHIIHH", 16, 1, channels, 16_000, 16_000 * channels, channels, 8)
    riff = b"WAVEfmt " + head + b"data" + struct.pack("<I", len(data)) + data
    (tmp_path / "wide.wav").write_bytes(b"RIFF" + struct.pack("<I", len(riff)) + riff)
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"question": "Is it?", "answer": "yes", "audio": "wide.wav"}), encoding="utf-8")
    ((where, what),) = errors(check_task(find_task(file)))
    assert (where, "63 channels" in what) == ("wide.wav", True)


def test_a_row_that_names_a_folder_is_left_out_and_stops_no_run(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    rows = [{"question": "Is it?", "answer": "yes", "video": "."}, {"question": "Is it?", "answer": "no"}]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    ((where, what),) = errors(check_task(find_task(file)))
    assert where == "own.jsonl:1"
    assert "is a folder, not a file" in what
    found = find_task(file).read()
    assert [instance.gold for instance in found.instances] == ["no"]
    assert "1 row that cannot be asked is left out; the first: own.jsonl:1: video: " in found.remarks[0]
