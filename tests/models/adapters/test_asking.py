"""Questions, choices, sound that must arrive, files that are read once, and adapters of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from omnisink import MediaError, OmnisinkError, load_model
from omnisink.models.adapters import base, registry
from omnisink.models.adapters.qwen2_5_omni import SYSTEM, Qwen25Omni
from omnisink.questions.choices import check_choices, with_choices
from omnisink.questions.parsing import parse_letter
from omnisink.verification.families_omni import build_full
from tests.models.tiny_checkpoints import qwen2_5_omni_parts


@pytest.fixture
def omni(families):
    return families("qwen2_5_omni")


def test_choices_are_lettered_and_the_letter_is_asked_for(omni, clip):
    inputs = omni.inputs("What colour?", video=clip, choices=["red", "blue"])
    text = omni.tokenizer.decode(inputs["input_ids"][0])
    assert "What colour?\nA. red\nB. blue\nAnswer with the letter.<|im_end|>" in text
    assert with_choices("Why?", ()) == "Why?"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" C.", "C"),
        ("(A) red", "A"),
        ("B. a blue star", "B"),
        ("The answer is D", "D"),
        ("red (C)", "C"),
        ("A bird sings", None),
        ("A Bell.", None),
        ("A because it rings", "A"),
        ("A\nThe bell rings.", "A"),
        ("**B**", "B"),
        ("Answer: (B)", "B"),
        ("The correct option is B.", "B"),
        ("The answer is A bell", None),
        ("The answer is not B", None),
        ("B. A bell rings", "B"),
        ("A and B", None),
        ("A or B", None),
        ("A, B", None),
        ("A/B", None),
        ("A. B", None),
        ("The answer is A or B", None),
        ("Neither A nor B", None),
        ("It's A's", None),
        ("Bird", None),
        ("red", None),
        ("E", None),
        ("(A) or (B)", None),
        ("", None),
    ],
)
def test_a_letter_is_read_and_never_guessed(answer, letter):
    assert parse_letter(answer, 4) == letter


@pytest.mark.parametrize(
    ("answer", "letter"), [("I think it is C", None), ("I", "I"), ("(I)", "I"), ("I. nine", "I"), ("J", "J")]
)
def test_the_pronoun_is_no_letter(answer, letter):
    assert parse_letter(answer, 10) == letter


@pytest.mark.parametrize(
    "given",
    [
        ["A. bell", "B. drum"],
        ["(A) bell", "(B) drum"],
        ["a) bell", "b) drum"],
        ["[A] bell", "B: drum"],
        ["A.bell", "B.drum"],
        ["A、bell", "B、drum"],
        [" A) bell", "B)\tdrum"],
    ],
)
def test_choices_that_carry_their_letters_get_them_once(given):
    assert check_choices(given) == ("bell", "drum")
    assert with_choices("What?", given) == "What?\nA. bell\nB. drum\nAnswer with the letter."


def test_letters_are_taken_off_once(omni):
    inputs = omni.inputs("What?", choices=["(A) 1. bell", "(B) 2. drum"])
    assert inputs.prompts[0].choices == ("1. bell", "2. drum")
    assert "What?\nA. 1. bell\nB. 2. drum\nAnswer" in omni.tokenizer.decode(inputs["input_ids"][0])


@pytest.mark.parametrize("given", [["A. bell", "drum"], ["J. Smith", "K. Doe"], ["a cat", "b dog"], ["-1", "0"]])
def test_what_only_looks_like_letters_stays(given):
    assert check_choices(given) == tuple(given)


def test_letters_in_another_order_are_refused():
    with pytest.raises(OmnisinkError, match="carry the letters B, A, and stand in another order"):
        check_choices(["(B) drum", "(A) bell"])


def test_the_system_message_is_the_familys_unless_said(omni, clip):
    def start(system: str | None) -> str:
        return omni.tokenizer.decode(omni.inputs("Why?", video=clip, system=system)["input_ids"][0])

    assert start(None).startswith(f"<|im_start|>system\n{SYSTEM}<|im_end|>")
    assert start("Be brief.").startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert start("").startswith("<|im_start|>user\n")


def test_sound_is_told_to_template_processor_and_generate_alike(omni, clip):
    with_sound, without = omni.inputs("Why?", video=clip), omni.inputs("Why?", video=clip, audio=False)
    assert with_sound["use_audio_in_video"] is True
    assert with_sound.facts[0].audio_tokens == 100
    assert "use_audio_in_video" not in without
    assert without.facts[0].audio_tokens == 0
    apart = omni.inputs("Why?", video=clip, audio=clip.parent / ".." / clip.parent.name / clip.name)
    assert "use_audio_in_video" not in apart, "another file's sound does not take turns with the frames"
    assert apart.facts[0].audio_tokens == 100


def silent(path: Path) -> Path:
    import av
    import numpy as np

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for i in range(16):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * i, np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    return path


def test_a_video_without_sound_is_an_error_unless_none_is_wanted(omni, tmp_path):
    path = silent(tmp_path / "silent.mp4")
    with pytest.raises(MediaError, match="has no sound"):
        omni.inputs("Why?", video=path)
    assert omni.inputs("Why?", video=path, audio=False).facts[0].video_tokens > 0


def test_sound_that_does_not_arrive_is_an_error(omni, clip, monkeypatch):
    whole = type(omni.processor)._process_audio

    def half(self, audio, **settings):
        return whole(self, [samples[: len(samples) // 2] for samples in audio], **settings)

    monkeypatch.setattr(type(omni.processor), "_process_audio", half)
    with pytest.raises(OmnisinkError, match=r"did not reach the prompt: its 4.01 s should be 100 audio tokens, .* 50"):
        omni.inputs("Why?", video=clip)


def test_sound_longer_than_the_feature_extractors_window_is_not_cut(omni, tmp_path):
    import numpy as np
    import soundfile

    path = tmp_path / "long.wav"
    soundfile.write(path, np.sin(np.arange(16_000 * 12) / 20).astype(np.float32) * 0.3, 16_000)
    assert omni.processor.feature_extractor.chunk_length == 10
    assert omni.inputs("Why?", audio=path).facts[0].audio_tokens == 300


def test_questions_about_one_video_decode_it_once(omni, clip, monkeypatch):
    read = base.read_clip
    calls = []
    monkeypatch.setattr(base, "read_clip", lambda path, **how: calls.append(path) or read(path, **how))
    omni.inputs(["Why?", "How?", "When?"], video=clip)
    assert calls == [clip]
    omni.inputs(["Why?", "How?"], video=[clip, clip], audio=False)
    assert len(calls) == 2


def test_different_media_in_one_batch(omni, clip):
    batch = omni.inputs(["Why?", "How?"], video=[clip, None], audio=[None, clip])
    assert [f.audio_tokens for f in batch.facts] == [100, 100]
    assert [f.video_tokens > 0 for f in batch.facts] == [True, False]
    alone = omni.inputs("Why?", video=clip), omni.inputs("How?", audio=clip)
    with torch.inference_mode():
        together = omni.model(**batch).logits[:, -1]
        for row, one in zip(together, alone, strict=True):
            torch.testing.assert_close(row, omni.model(**one).logits[0, -1], atol=2e-4, rtol=2e-3)


def test_videos_with_and_without_their_sound_are_not_mixed(omni, families, clip):
    for loaded in (omni, families("qwen3_omni")):
        with pytest.raises(OmnisinkError, match="cannot be in one batch"):
            loaded.inputs(["Why?", "How?"], video=clip, audio=[None, False])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"question": ""}, "the question is empty"),
        ({"question": []}, "there is no question"),
        ({"question": 3}, "the question must be a text"),
        ({"question": ["a", None]}, "the question must be a text"),
        ({"question": "a", "choices": [-1, 0]}, "choices must be two texts or more"),
        ({"question": "a", "choices": ["a", 0]}, "choices must be two texts or more"),
        ({"question": "\ud800"}, "the processor of .* refuses it"),
        ({"question": ["a", "b"], "video": ["x"]}, "video has 1 entries for 2 questions"),
        ({"question": "a", "choices": ["one"]}, "choices must be two texts or more, up to 26"),
        ({"question": "a", "choices": ["one", " "]}, "one of the choices is empty: B"),
        ({"question": "a", "audio": True}, "there is no video"),
        ({"question": "a", "video": "absent.mp4"}, "absent.mp4: there is no such file"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_error(omni, asked, message):
    with pytest.raises(OmnisinkError, match=message):
        omni.inputs(**asked)


@pytest.mark.parametrize("count", [0, -1])
def test_an_answer_has_a_token_at_least(omni, count):
    with pytest.raises(OmnisinkError, match="max_new_tokens must be a positive number"):
        omni.ask("Why?", max_new_tokens=count)


def test_a_text_model_and_an_unknown_family_say_so(llama_folder, clip, monkeypatch):
    with pytest.raises(OmnisinkError, match="takes text only"):
        load_model(llama_folder).inputs("Why?", video=clip)
    monkeypatch.setattr(registry, "ADAPTERS", ())
    loaded = load_model(llama_folder)
    loaded.processor = object()
    with pytest.raises(OmnisinkError, match="of the type llama, for which there is no adapter"):
        loaded.inputs("Why?", video=clip)


def test_only_the_thinker_of_a_whole_model_is_loaded(tmp_path):
    whole = build_full()
    whole.save_pretrained(tmp_path)
    qwen2_5_omni_parts()[1].save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded.model).__name__ == "Qwen2_5OmniThinkerForConditionalGeneration"
    assert isinstance(loaded.adapter, Qwen25Omni)
    theirs = dict(whole.thinker.named_parameters())
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


class _Points:
    """Stands where installed packages are listed, which a test cannot install."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __call__(self, group: str) -> list[EntryPoint]:
        return [EntryPoint("mine", self.value, group)]


class MyAdapter(Qwen25Omni):
    """An adapter of another package."""

    default_system = "Mine."


def test_an_adapter_from_outside_is_found_and_comes_first(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", _Points("tests.models.adapters.test_asking:MyAdapter"))
    assert isinstance(registry.find_adapter("qwen2_5_omni_thinker"), MyAdapter)
    assert type(registry.find_adapter("qwen3_vl")).__name__ == "Qwen3VL"
    assert registry.find_adapter("nothing") is None
    monkeypatch.setattr(registry, "entry_points", _Points("tests.models.adapters.test_asking:absent"))
    with pytest.raises(OmnisinkError, match="the adapter mine .* cannot be loaded"):
        registry.find_adapter("qwen3_vl")
    monkeypatch.setattr(registry, "entry_points", _Points("builtins:int"))
    with pytest.raises(OmnisinkError, match="is not a subclass of Adapter"):
        registry.find_adapter("qwen3_vl")
