"""The training of SmolOmni: what its tokens should say, and that its shortcuts compute what the model computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from omnisink.cli.demo import CLIP
from omnisink.synthav.scene import Scene, Sound, Thing, make_scene
from training.labels import CELLS, GRIDS, HEARD, SEEN, heard, sayings, seen
from training.prompts import Asked, Layout, draw_questions, drill, fits
from training.score import interval
from training.towers import patchify, quicken

STAR = Thing("star", "red", "small", "left", 0.5, 0.5, 0.1, 0.5)
BEEP = Sound("beep", 1.0, "low", "quiet")
BELL = Thing("bell", "blue", "large", "still", 0.2, 0.8, 0.2)


def scene(layout="single", things=(STAR,), sounds=(BEEP,)):
    return Scene("train", 0, layout, things, sounds, None, 0)


def spelled(groups, labels):
    said = sayings(groups)
    return [said[i] for i in labels]


def test_a_video_token_says_one_word_of_an_object():
    labels = seen(scene())
    assert labels.shape == (GRIDS, CELLS)
    words = ["one", "small", "red", "red", "star", "star", "left", "left"]
    assert [spelled(SEEN, row) for row in labels] == [words + ["nothing"] * 8] * GRIDS


def test_objects_that_are_alike_are_one_with_a_number_and_a_second_object_comes_after_the_first():
    three = seen(scene("many", (BELL, BELL, BELL)))
    assert spelled(SEEN, three[0])[:6] == ["three", "large", "blue", "blue", "bell", "bell"]
    pair = spelled(SEEN, seen(scene("pair", (BELL, STAR)))[0])
    assert (pair[4], pair[12]) == ("star", "bell"), "the upper one comes first"
    over = spelled(SEEN, seen(scene("overlap", (BELL, STAR)))[0])
    assert (over[4], over[7], over[12], over[15]) == ("bell", "behind", "star", "front")


def test_a_sound_is_spelled_where_it_begins_and_a_word_to_its_end():
    labels = spelled(HEARD, heard(scene(sounds=(BEEP, Sound("bell", 2.0)))))
    assert labels[25:32] == ["beep"] * 3 + ["low"] * 2 + ["quiet"] * 2
    assert labels[50:55] == ["bell"] * 3 + ["loud"] * 2
    assert labels.count("silence") == 100 - 12


@pytest.mark.parametrize("index", range(0, 60, 7))
def test_every_training_scene_has_labels_and_questions(index):
    made = make_scene("train", index)
    if all(s.kind != "voice" for s in made.sounds):
        assert heard(made).any()
    assert seen(made).any()
    rng = np.random.default_rng(index)
    for parts in ("both", "video", "audio"):
        assert all(one.answer for one in draw_questions(made, 6, rng, parts))
    assert all(one.text.startswith("Video: ") for one in drill(made, 4, rng))


def test_questions_about_a_part_of_a_clip_need_that_part_alone():
    from omnisink.synthav.questions import make_questions

    asked = [q for i in range(40) for q in make_questions(make_scene("train", i))]
    assert {q.category for q in asked if fits(q, "audio")} == {"audio", "existence"}
    assert {q.category for q in asked if fits(q, "video")} == {"visual", "existence"}


@pytest.mark.real
def test_the_quick_tower_computes_what_the_tower_computes(smolomni):
    frames = torch.randint(0, 256, (2, 4, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([[2, 8, 8]] * 2)
    quick = copy.deepcopy(smolomni.model.model.visual)
    quicken(quick)
    with torch.inference_mode():
        plain = smolomni.model.model.visual(patchify(frames), grid_thw=grid).pooler_output
        torch.testing.assert_close(quick(patchify(frames), grid_thw=grid).pooler_output, plain, atol=2e-4, rtol=1e-4)


@pytest.mark.real
def test_packed_questions_are_blind_to_each_other(smolomni):
    layout = Layout(smolomni.model, smolomni.processor, "text")
    asked = [Asked("What is red?", "star", "", ""), Asked("Say yes, or say no at once.", "no", "", "")]
    batch = layout.batch([asked])
    core = smolomni.model.model.language_model
    with torch.inference_mode():
        packed = core(
            inputs_embeds=core.embed_tokens(batch.ids), attention_mask=batch.mask, position_ids=batch.positions
        ).last_hidden_state.flatten(0, 1)[batch.at]
        for number, one in enumerate(asked):
            alone = layout.batch([[one]])
            plain = core(input_ids=alone.ids).last_hidden_state.flatten(0, 1)[alone.at]
            begin = batch.first[number]
            torch.testing.assert_close(packed[begin : begin + len(plain)], plain, atol=2e-3, rtol=1e-3)


@pytest.mark.real
@pytest.mark.parametrize(("parts", "media"), [("both", {}), ("video", {"audio": False})])
def test_clips_are_laid_out_as_the_model_lays_them_out(smolomni, parts, media):
    inputs = smolomni.inputs("?", video=CLIP, **media)
    layout = Layout(smolomni.model, smolomni.processor, parts)
    assert layout.ids.tolist() == inputs["input_ids"][0, : len(layout.ids)].tolist()


def test_an_interval_is_over_clips_and_not_over_questions():
    records = [{"clip": f"{i // 4}"} for i in range(80)]
    values = [float(i // 4 % 2) for i in range(80)]
    one = interval(records, values, draws=2_000)
    assert one["percent"] == 50
    # Twenty clips, of which each answers all or nothing: 50 +- 1.96 * 100 * sqrt(0.25 / 20).
    assert one["low"] == pytest.approx(28, abs=4)
    assert one["high"] == pytest.approx(72, abs=4)
