"""What a folder says of a model before its weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from omnisink import OmnisinkError, load_model
from omnisink.cli.demo import CLIP
from omnisink.models.facts import check_can_answer, check_can_answer_some, known_adapter
from omnisink.questions.items import Item
from tests.cli.command import refused
from tests.models.tiny_checkpoints import BESIDE, CHECKPOINTS, HEARING, PICTURES


@pytest.mark.parametrize("family", [*CHECKPOINTS, *BESIDE])
def test_the_adapter_is_known_without_the_weights(family, families, tmp_path):
    loaded = families(family)
    for file in Path(loaded.name).glob("*.json"):
        shutil.copy(file, tmp_path)
    found = known_adapter(tmp_path)
    assert type(found) is type(loaded.adapter)
    check_can_answer(tmp_path, {"image", "video"} if family in (*PICTURES, *BESIDE) else {"video"})
    if family not in (*HEARING, *BESIDE):
        with pytest.raises(OmnisinkError, match="cannot hear: the family takes no audio"):
            check_can_answer(tmp_path, {"audio"})


def test_the_thinker_of_a_whole_model_is_what_will_be_loaded(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": {}}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert type(known_adapter(tmp_path)).__name__ == "Qwen25Omni"


def test_the_embedded_models_are_known_by_name():
    check_can_answer("smolomni", {"image", "video", "audio"})
    check_can_answer("SmolLM2-135M", ())
    with pytest.raises(OmnisinkError, match="takes text only: no processor"):
        check_can_answer("smollm2-135m", {"video"})


def test_a_family_without_an_adapter_is_asked_about_text_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody"}))
    (tmp_path / "processor_config.json").write_text("{}")
    check_can_answer(tmp_path, ())
    with pytest.raises(OmnisinkError, match="of the type nobody, for which there is no adapter"):
        check_can_answer(tmp_path, {"image"})


@pytest.mark.parametrize("content", [None, "", "[]", "[" * 100_000, "\xff"])
def test_what_cannot_be_read_is_left_to_loading(content, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
    check_can_answer(tmp_path, {"video"})
    check_can_answer("nobody/nothing", {"video"})
    with pytest.raises(OmnisinkError):
        load_model(tmp_path)


def test_questions_are_refused_where_the_model_can_be_asked_none_of_them(llama_folder):
    video, text = Item("a", "What?", "yes", video=CLIP), Item("b", "Why?", "yes")
    picture = Item("c", "What?", "yes", image=CLIP)
    with pytest.raises(OmnisinkError, match="takes text only"):
        check_can_answer_some(llama_folder, [video, picture])
    check_can_answer_some(llama_folder, [video, text])
    check_can_answer_some(llama_folder, [])


@pytest.mark.parametrize("verb", ["study", "eval"])
def test_a_text_model_is_refused_before_it_is_loaded(verb, llama_folder, tmp_path):
    """The weights are no weights: were they read, their message would come first."""
    folder = shutil.copytree(llama_folder, tmp_path / "copy")
    (folder / "model.safetensors").write_bytes(b"damaged")
    shutil.copy(CLIP, tmp_path)
    row = {"question": "What?", "video": CLIP.name, "choices": ["bell", "drum"], "answer": "A"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    source = "--data" if verb == "study" else "--task"
    args = (verb, "--model", str(folder), source, str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "out"))
    assert "takes text only" in refused(*args)
