"""What we hand to lmms-eval, looked at without it; tests/integrations/lmms runs the real one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.prompts import prompt_of as own_prompt_of
from omnisink.evaluation.tasks.task import find_task
from omnisink.integrations.lmms import tasks_folder
from omnisink.integrations.lmms.messages import messages_of, prompt_of, visual_message
from omnisink.integrations.lmms.questions import (
    avhbench_results,
    daily_omni_results,
    doc_of,
    f1,
    instance_of,
    mean,
    said_yes,
    slug,
    to_messages,
    to_target,
    to_text,
    to_visual,
    variable,
)
from omnisink.integrations.lmms.settings import Generation, read_generation, read_method
from omnisink.methods.controls import OutRoControl
from omnisink.models.adapters.registry import own_system
from tests.evaluation.benchmark_folders import NAMES
from tests.evaluation.benchmark_folders import load as load_fixture

#: Our tasks in lmms-eval, with the task, the protocol and the groups that each asks about.
SHIPPED = {
    "avhbench_video_driven": ("avhbench", "outro"),
    "avhbench_audio_driven": ("avhbench", "outro"),
    "avhbench_matching": ("avhbench", "outro"),
    "avhbench_strict": ("avhbench", "strict"),
    "daily_omni": ("daily-omni", "outro"),
    "daily_omni_official": ("daily-omni", "official"),
    "daily_omni_lettered": ("daily-omni", "lettered"),
    "synthav": ("synthav", "strict"),
}


class Hearing:
    """Stands for a loaded model that hears."""

    class adapter:
        modalities = frozenset({"video", "audio", "image"})


def turn(*content: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


VIDEO = {"type": "video", "url": "a.mp4"}


@pytest.mark.parametrize("name", NAMES)
def test_a_question_comes_back_from_messages_as_our_runner_asks_it(name: str, tmp_path: Path) -> None:
    for protocol in find_task(name).protocols:
        for instance in load_fixture(name, tmp_path, protocol):
            assert instance_of(doc_of(instance)) == instance
            if instance.video is not None and instance.audio is False:
                with pytest.raises(OmnisinkError, match="cannot say that a video is shown without its sound"):
                    messages_of(instance)
                continue
            found = prompt_of(to_messages(doc_of(instance)), hears=True)
            assert replace(found, system=own_system(Hearing.adapter, found.system)) == own_prompt_of(
                Hearing(), instance
            )


def test_a_row_has_what_lmms_eval_shows(tmp_path: Path) -> None:
    instance = load_fixture("avhbench", tmp_path)[0]
    doc = doc_of(instance)
    assert all(isinstance(value, str) for value in doc.values())
    assert (to_text(doc), to_target(doc), to_visual(doc)) == (instance.text, instance.gold, [str(instance.video)])


def loose_yaml(path: Path) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    found = yaml.load(path.read_text(encoding="utf-8"), Loader)
    return {**(loose_yaml(path.parent / found.pop("include")) if "include" in found else {}), **found}


def test_the_files_say_what_the_protocols_say() -> None:
    files = {f.stem: loose_yaml(f) for f in tasks_folder().rglob("*.yaml")}
    assert {name for name, says in files.items() if "group" in says} == {"avhbench"}
    tasks = {name: says for name, says in files.items() if "group" not in says}
    assert tasks.keys() == SHIPPED.keys()
    for name, says in tasks.items():
        task, protocol = SHIPPED[name]
        asked = find_task(task).protocol(protocol)
        assert says["task"] == name
        assert says["generation_kwargs"] == {
            "max_new_tokens": asked.max_new_tokens,
            "do_sample": False,
            "until": [],
        }
        assert not asked.by_kind or all("max_new_tokens" not in kind for kind in asked.by_kind.values())
    assert set(files["avhbench"]["task"]) < tasks.keys()


def test_the_breakdowns_are_those_of_the_benchmark() -> None:
    metrics = {m["metric"] for m in loose_yaml(tasks_folder() / "daily_omni" / "daily_omni.yaml")["metric_list"]}
    types = find_task("daily-omni").counts["test"]["type"]
    assert {slug(name) for name in types} == metrics - {"daily_omni_score", "unparsed"}


def test_the_folder_can_be_asked_for() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "omnisink.integrations.lmms"], capture_output=True, text=True, check=True
    )
    assert Path(said.stdout.strip()) == tasks_folder()
    assert (tasks_folder() / "placeholder.jsonl").is_file()


def test_answers_are_scored_as_in_our_runner(tmp_path: Path) -> None:
    docs = [doc_of(i) for i in load_fixture("avhbench", tmp_path / "a", "strict")[:2]]
    found = [avhbench_results(doc, [said]) for doc, said in zip(docs, ["Yes.", "I cannot tell"], strict=True)]
    assert [one["avhbench_score"]["score"] for one in found] == [1.0, 0.0]
    assert [one["unparsed"] for one in found] == [0.0, 1.0]
    assert mean([one["avhbench_score"] for one in found]) == 0.5
    assert (f1([one["f1"] for one in found]), said_yes([one["yes"] for one in found])) == (1.0, 0.5)
    doc = doc_of(load_fixture("daily-omni", tmp_path / "d")[0])
    scored = daily_omni_results(doc, [doc["answer"]])
    assert scored["daily_omni_score"]["score"] == 1.0
    kind = instance_of(doc).groups["type"][0]
    assert scored[slug(kind)] == 1.0


def test_variables() -> None:
    assert variable("daily-omni") == "OMNISINK_DATA_DAILY_OMNI"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "the messages are by: none"),
        ([turn(text("a")), turn(text("b"), role="assistant"), turn(text("c"))], "one question of one turn"),
        ([turn(VIDEO, VIDEO, text("a"))], "more than one video"),
        ([turn(text("a"), VIDEO, text("b"))], "before and after"),
        ([turn({**VIDEO, "start_time": 1.0}, text("a"))], "whole file"),
        ([turn({"type": "audio", "url": {"array": [0.0]}}, text("a"))], "in memory"),
        ([turn({"type": "video", "url": [1, 2]}, text("a"))], "path of a file, got list"),
        ([turn({"type": "smell"}, text("a"))], "type 'smell'"),
        ([turn(VIDEO, role="system"), turn(text("a"))], "of the user, not of the system"),
    ],
)
def test_what_an_adapter_cannot_be_given_is_refused(messages: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(OmnisinkError, match=why):
        prompt_of(messages, hears=True)


def test_sound_of_a_video(clip: Path, tmp_path: Path) -> None:
    messages = [turn({"type": "video", "url": f"file://{clip}"}, text("a"))]
    assert prompt_of(messages, hears=True).sound == clip
    assert prompt_of(messages, hears=True, audio="if-there").sound == clip
    assert prompt_of(messages, hears=True, audio="never").sound is None
    assert prompt_of(messages, hears=False).sound is None
    own = [turn(VIDEO, {"type": "audio", "url": "b.wav"}, text("a"))]
    assert prompt_of(own, hears=True, audio="never").sound == Path("b.wav")


def test_pictures_in_memory_become_files(tmp_path: Path) -> None:
    from PIL import Image

    stored = []

    def store(picture: Any) -> Path:
        stored.append(picture)
        return tmp_path / "0.png"

    messages = visual_message([Image.new("RGB", (4, 4)), "b.wav"], "what?")
    found = prompt_of(messages, hears=True, store=store)
    assert (found.image, found.sound, found.question) == (tmp_path / "0.png", Path("b.wav"), "what?")
    assert len(stored) == 1
    with pytest.raises(OmnisinkError, match="paths or pictures, got dict"):
        visual_message([{"array": []}], "what?")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, Generation(1024)),
        ({"max_new_tokens": 1, "do_sample": False, "until": [], "temperature": 0}, Generation(1)),
        ({"max_gen_toks": 7, "until": "\n\n", "top_p": 0.5}, Generation(7, (), ("\n\n",))),
        (
            {"max_new_tokens": 9, "temperature": 0.7, "top_p": 0.9, "num_beams": 1},
            Generation(9, (("do_sample", True), ("num_beams", 1), ("temperature", 0.7), ("top_p", 0.9))),
        ),
        ({"max_new_tokens": 9, "temperature": 0.7, "do_sample": False}, Generation(9)),
        ({"max_new_tokens": 9, "temperature": 0, "do_sample": True}, Generation(9)),
        ({"max_new_tokens": 9, "image_aspect_ratio": "original"}, Generation(9)),
    ],
)
def test_generation_of_a_task(given: dict[str, Any], read: Generation) -> None:
    assert read_generation(given) == read


@pytest.mark.parametrize("given", [{"max_new_tokens": 0}, {"max_new_tokens": "9"}, {"num_return_sequences": 2}])
def test_generation_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(OmnisinkError):
        read_generation(given)


def test_an_answer_ends_before_the_first_stop() -> None:
    assert Generation(9, (), ("\n\n", "Q:")).cut("A Q: B\n\nC") == "A"
    assert Generation(9, (), ("\n\n",)).cut("A") == "A"


def test_methods_of_model_args() -> None:
    assert read_method("baseline", "smolomni", None, 0.1) is None
    assert read_method("outro", "SmolOmni", None, 0.2).gamma == 0.1
    assert read_method("outro", "else", 0.7, 0.2).gamma == 0.7
    assert isinstance(read_method("outro:random", "smolomni", None, 0.1), OutRoControl)
    for wrong, says in (
        ({"method": "outro,baseline"}, "one method at a time"),
        ({"method": "magic"}, "there is no method 'magic'"),
        ({"method": "zero-heads", "gamma": 0.3}, "gamma is a setting of OutRo"),
        ({"tau": -1.0}, "tau"),
    ):
        with pytest.raises(OmnisinkError, match=says):
            read_method(**{"method": "outro", "pretrained": "smolomni", "gamma": None, "tau": 0.1, **wrong})
