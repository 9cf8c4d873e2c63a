"""Every family, from a tiny checkpoint on disk with its real processor: prompts, spans, answers, batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import pytest
import torch

from omnisink import OutRo, find_sinks
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.media import AtTimes, Uniform, read_clip
from omnisink.methods.base import Method
from omnisink.methods.modality import count_by_modality, label_tokens, modality_sets
from omnisink.methods.spans import require_modality
from tests.models.tiny_checkpoints import CHECKPOINTS, HEARING, PICTURES

ALL = list(CHECKPOINTS)
#: Few frames: a picture is hundreds of tokens in Phi-4.
FEW = Uniform(4)


@pytest.fixture(params=ALL)
def family(request) -> str:
    return request.param


def test_every_position_belongs_to_one_span_and_placeholders_to_their_modality(family, families, clip):
    loaded = families(family)
    inputs = loaded.inputs("What is seen?", video=clip, frames=FEW)
    facts, spans = inputs.facts[0], loaded.spans(inputs)[0]
    assert [p for s in spans for p in range(s.start, s.stop)] == list(range(inputs["input_ids"].shape[1]))
    held = loaded.adapter.placeholders(loaded, inputs.prompts[0])
    for span in spans:
        kinds = {held.get(int(i), "text") for i in inputs["input_ids"][0, span.start : span.stop]}
        assert kinds == {span.modality}
    assert sum(s.stop - s.start for s in spans if s.modality == "video") == facts.video_tokens > 0
    assert (facts.audio_tokens > 0) == (family in HEARING)
    assert facts.prompt_tokens == inputs["input_ids"].shape[1]


def test_video_spans_carry_the_times_of_their_frames(family, families, clip):
    loaded = families(family)
    wanted = AtTimes((0.0, 1.0, 2.0, 3.0))
    spans = loaded.spans(loaded.inputs("What is seen?", video=clip, frames=wanted))[0]
    times = read_clip(clip, frames=wanted).times
    assert times is not None
    patch = loaded.adapter.temporal_patch(loaded)
    seen = list(dict.fromkeys((s.begins, s.ends) for s in spans if s.modality == "video"))
    assert [begins for begins, _ in seen] == pytest.approx(list(times[::patch]))
    assert all(a[1] == b[0] for a, b in pairwise(seen))
    assert seen[-1][1] == pytest.approx(4.0)


@pytest.mark.parametrize("family", HEARING)
def test_audio_spans_run_through_the_sound_without_a_gap(family, families, clip):
    loaded = families(family)
    inputs = loaded.inputs("What is heard?", audio=clip)
    # Silence that a family adds has no time; tokens of one time may have a span each.
    heard = [s for s in loaded.spans(inputs)[0] if s.modality == "audio" and s.begins is not None]
    assert heard[0].begins == 0.0
    times = dict.fromkeys((s.begins, s.ends) for s in heard)
    assert all(ends == pytest.approx(begins) for (_, ends), (begins, _) in pairwise(times))
    assert heard[-1].ends == pytest.approx(inputs.facts[0].audio_seconds, abs=0.1)
    first, last = heard[0].time(heard[0].start), heard[-1].time(heard[-1].stop - 1)
    assert first is not None
    assert last is not None
    assert first[0] == 0.0
    assert last[1] == pytest.approx(heard[-1].ends)


def test_an_answer_is_the_models_own_greedy_generation(family, families, clip):
    loaded = families(family)
    inputs = loaded.inputs("What is seen?", video=clip, frames=FEW)
    answer = loaded.ask("What is seen?", video=clip, frames=FEW, max_new_tokens=5)
    with torch.inference_mode():
        made = loaded.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    new = made[0, inputs["input_ids"].shape[1] :]
    assert answer.text == loaded.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert len(new) == 5 or int(new[-1]) == 2
    assert answer.facts.media["video"]["frames_kept"] == 4


def test_what_the_model_sees_changes_what_it_says(family, families, clip, tmp_path):
    """Black frames instead of the clip's move the logits: the picture is not left out on the way."""
    import av
    import numpy as np

    black = tmp_path / "black.mp4"
    with av.open(str(black), "w") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.width = stream.height = 224
        stream.pix_fmt = "yuv420p"
        for _ in range(32):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((224, 224, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    loaded = families(family)
    logits = []
    for path in (clip, black):
        inputs = loaded.inputs("What is seen?", video=path, audio=False, frames=FEW)
        with torch.inference_mode():
            logits.append(loaded.model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_a_batch_is_padded_on_the_left_and_answers_as_its_questions_alone(family, families, clip):
    loaded = families(family)
    questions = ["What is seen?", "Which of the things in this clip is seen first, and which is seen last?"]
    batch = loaded.inputs(questions, video=clip, frames=FEW)
    assert batch["attention_mask"][0, 0] == 0
    assert bool(batch["attention_mask"][:, -1].all())
    spans = loaded.spans(batch)
    pads = int((batch["attention_mask"][0] == 0).sum())
    assert spans[0][0].start == pads
    with torch.inference_mode():
        together = loaded.model(**batch).logits[:, -1]
        for i, question in enumerate(questions):
            alone = loaded.model(**loaded.inputs(question, video=clip, frames=FEW)).logits[0, -1]
            torch.testing.assert_close(together[i], alone, atol=2e-4, rtol=2e-3)
    answers = loaded.ask(questions, video=clip, frames=FEW, max_new_tokens=3)
    assert [a.text for a in answers] == [
        loaded.ask(q, video=clip, frames=FEW, max_new_tokens=3).text for q in questions
    ]


@pytest.mark.parametrize("family", PICTURES)
def test_an_image_reaches_the_prompt(family, families, clip, tmp_path):
    from PIL import Image

    seen = read_clip(clip, frames=Uniform(1)).frames
    assert seen is not None
    path = tmp_path / "frame.png"
    Image.fromarray(seen[0]).save(path)
    loaded = families(family)
    inputs = loaded.inputs("What is seen?", image=path)
    assert inputs.facts[0].image_tokens > 0
    assert {s.modality for s in loaded.spans(inputs)[0]} == {"text", "image"}
    assert isinstance(loaded.ask("What is seen?", image=path, max_new_tokens=2).text, str)


@dataclass(frozen=True)
class Looking(Method):
    """Note what is known of the modalities of the prompt's tokens."""

    seen: list = field(default_factory=list, compare=False)

    needs_spans: ClassVar[bool] = True

    def begin(self, context):
        self.seen.append(context.spans)

    def head_output(self, call, output, context):
        return output


def test_methods_know_the_spans_of_a_prompt(family, families, clip, tmp_path):
    from PIL import Image

    path = tmp_path / "frame.png"
    Image.fromarray(read_clip(clip, frames=Uniform(1)).frames[0]).save(path)
    loaded = families(family)
    heard = {"audio": clip} if family in HEARING else {}
    asked = ["What is seen?", "Which of the things in it is seen first, and which is seen last?"]
    seen = ({"image": path}, {"image": [path, None]}) if family in PICTURES else ()
    for media in ({"video": clip, "frames": FEW}, {}, heard, *seen):
        inputs = loaded.inputs(asked, **media)
        expected = modality_sets(loaded.spans(inputs), inputs)
        assert expected.keys() - {"text"} == {m for m in media if m != "frames"} | (
            {"audio"} if "video" in media and heard else set()
        )
        looking = Looking()
        loaded.ask(asked, **media, method=looking, max_new_tokens=2)
        # Ids do not say that Phi-4's pictures are frames: to it they are pictures.
        plain = family != "phi4_multimodal" or "video" not in media
        with torch.inference_mode(), looking(loaded, spans=None if plain else loaded.spans(inputs)):
            loaded.model(**inputs)
        for noted in looking.seen:
            for modality in ("text", "image", "video", "audio"):
                mask = noted.get(modality, torch.zeros_like(noted["text"]))
                assert torch.equal(mask, expected.get(modality, torch.zeros_like(mask)))


@pytest.mark.parametrize("wanted", ["image", "audio"])
def test_a_method_about_a_modality_is_refused_where_the_model_does_not_take_it(wanted, families, clip, smollm2):
    @dataclass(frozen=True)
    class Needy(Looking):
        def begin(self, context):
            require_modality(context, wanted)

    with pytest.raises(UnsupportedModelError, match=f"Needy acts on {wanted} tokens"):
        smollm2.ask("What is seen?", method=Needy(), max_new_tokens=1)
    deaf = next(family for family in ALL if family not in HEARING)
    if wanted == "audio":
        with pytest.raises(UnsupportedModelError, match="Needy acts on audio tokens"):
            families(deaf).ask("What is heard?", video=clip, frames=FEW, method=Needy(), max_new_tokens=1)
    families(HEARING[0]).ask("What is it?", method=Needy(), max_new_tokens=1)


def test_a_model_that_cannot_hear_says_so(family, families, clip):
    loaded = families(family)
    if family in HEARING:
        assert loaded.inputs("What is heard?", video=clip, frames=FEW).facts[0].audio_tokens > 0
        assert loaded.inputs("What is heard?", video=clip, frames=FEW, audio=False).facts[0].audio_tokens == 0
        return
    assert loaded.inputs("What is heard?", video=clip, frames=FEW).facts[0].audio_tokens == 0
    for asked in ({"audio": True, "video": clip}, {"audio": clip}):
        with pytest.raises(OmnisinkError, match="cannot hear: the family takes no audio"):
            loaded.inputs("What is heard?", frames=FEW, **asked)


def test_sinks_are_found_and_named_by_modality(family, families, clip):
    loaded = families(family)
    inputs = loaded.inputs("What is seen?", video=clip, frames=FEW)
    spans = loaded.spans(inputs)[0]
    sinks = find_sinks(loaded.model, **inputs)
    counts = {c.modality: c for c in count_by_modality(sinks, spans)}
    assert sum(c.tokens for c in counts.values()) == inputs.facts[0].prompt_tokens
    found = {p for layer in sinks.layers for p in sinks.positions(layer)}
    assert {p for c in counts.values() for p in c.sinks} == found
    labels = label_tokens(["x"] * inputs.facts[0].prompt_tokens, spans)
    assert sum(label.startswith("<video ") for label in labels) == inputs.facts[0].video_tokens
    with OutRo(gamma=0.5)(loaded.model) as trace, torch.inference_mode():
        loaded.model(**inputs)
    assert trace.sinks.examined == sinks.examined
