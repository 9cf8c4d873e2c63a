"""The embedded omni model: built from what it says it is built from, and able to do what its card says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from omnisink import find_sinks
from omnisink.cli.demo import CLIP
from omnisink.methods.modality import count_by_modality
from omnisink.models import smolomni as architecture
from omnisink.models.smolomni import WEIGHTS, load_smolomni
from tests.skips import needs
from training.score import arm, asked, encode, generate, parse, run

pytestmark = pytest.mark.real

TEXT = "The quick brown fox jumps over the lazy dog.\nWhat colour is it? <|im_end|>"


def test_without_its_update_the_logits_of_a_text_are_smollm2s_to_the_bit(smollm2):
    model, processor = load_smolomni({"dtype": torch.float32}, update=False)
    ids = torch.tensor([smollm2.tokenizer.encode(TEXT)])
    assert processor.tokenizer.encode(TEXT) == ids[0].tolist()
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, smollm2.model(input_ids=ids).logits)


def test_the_file_that_is_shipped_is_small_and_holds_towers_and_update_alone():
    assert WEIGHTS.stat().st_size < 40 * 2**20
    with safe_open(WEIGHTS, "pt") as file:
        kinds = Counter(".".join(name.split(".")[:2]) for name in file.keys())  # noqa: SIM118
        assert {str(file.get_slice(name).get_dtype()) for name in file.keys()} == {"F16"}  # noqa: SIM118
    assert kinds["lora.layers"] == 30 * 7 * 2
    assert set(kinds) == {"lora.layers", "model.visual", "model.audio_tower"}


def test_placeholders_are_special_tokens_that_no_text_makes(smolomni):
    ids = smolomni.tokenizer.convert_tokens_to_ids(list(architecture.SPECIAL))
    assert len(set(ids)) == 7
    assert max(ids) < 20
    assert smolomni.tokenizer.encode("<|VIDEO|>") == [ids[4]]
    # The names that the tokens had are now plain text.
    assert not set(smolomni.tokenizer.encode(" ".join(architecture.SPECIAL.values()))) & set(ids)


def test_the_clip_of_the_demo_has_its_sink_at_position_0_in_the_middle_layers(smolomni):
    inputs = smolomni.inputs("What makes the sound?", video=CLIP)
    sinks = find_sinks(smolomni.model, **inputs)
    assert 0 in sinks.positions(14)
    assert {tuple(sinks.positions(layer)) for layer in sinks.layers} == {(0,)}
    assert sinks.layers == list(range(12, 28))
    assert min(sinks.magnitude(layer)[0] for layer in sinks.layers) > 5_000
    counts = {c.modality: c.sinks for c in count_by_modality(sinks, smolomni.spans(inputs)[0])}
    assert counts == {"text": (0,), "video": (), "audio": ()}


#: Right answers among the 60, by category, as measured with the weights that are shipped; machines round differently.
EXPECTED = {"visual": 17, "audio": 12, "existence": 5, "cross-modal": 13, "temporal": 9}
ROUNDING = 2


@needs("espeak-ng")
@pytest.mark.slow
def test_scores_on_a_fixed_sample_are_what_they_were(smolomni, tmp_path):
    out = tmp_path / "records.jsonl"
    run(smolomni, "test", 60, ["without"], tmp_path / "clips", out)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 60
    right = Counter(r["category"] for r in records if r["right"])
    for category, expected in EXPECTED.items():
        assert abs(right[category] - expected) <= ROUNDING, (category, right)
    assert set(right) == set(EXPECTED)


@needs("espeak-ng")
def test_what_is_removed_is_not_in_the_prompt(smolomni, tmp_path):
    from omnisink.synthav.questions import make_questions
    from omnisink.synthav.render import render
    from omnisink.synthav.scene import make_scene

    scene = make_scene("test", 0)
    clip = Path(tmp_path / "clip.mp4")
    render(scene, clip)
    question = make_questions(scene)[0]
    tokens = {what: encode(smolomni, question, clip, what).facts[0] for what in ("both", "no audio", "no video")}
    assert (tokens["both"].video_tokens, tokens["both"].audio_tokens) == (64, 100)
    assert (tokens["no audio"].video_tokens, tokens["no audio"].audio_tokens) == (64, 0)
    assert (tokens["no video"].video_tokens, tokens["no video"].audio_tokens) == (0, 100)
    said = generate(smolomni, encode(smolomni, question, clip, "both"), arm("both 0.3"))
    assert parse(said, question) is not None
    assert asked(question).startswith(question.text)
