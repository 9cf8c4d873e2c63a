"""video-SALMONN 2+: a checkpoint with the released names against Qwen2.5-VL and its hearing, put together by hand."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from omnisink import OmnisinkError, OutRo, find_sinks, load_model
from omnisink.media import Uniform
from omnisink.models.adapters.video_salmonn2_plus import EveryTenth, share_sound
from omnisink.models.facts import known_adapter
from omnisink.models.loaded import Loaded
from omnisink.models.ports.mrope import count_positions
from omnisink.verification.ports import video_salmonn2
from tests.cli.command import run
from tests.made_once import made_once
from tests.models.ports.hearing import below, check_heard, listen, read_windows

FEW = Uniform(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made_once(tmp_path_factory, "ports-video_salmonn2_plus", video_salmonn2.video_salmonn2_plus)


@pytest.fixture(scope="module")
def loaded(folder) -> Loaded:
    return load_model(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    from PIL import Image

    shades = np.random.default_rng(0).integers(0, 255, (112, 168, 3), dtype=np.uint8)
    Image.fromarray(shades).save(file := tmp_path_factory.mktemp("picture") / "picture.png")
    return file


@pytest.fixture(scope="module")
def weights(folder) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def plain(folder, weights):
    """Build transformers' Qwen2.5-VL from the weights that are its own."""
    config = transformers.Qwen2_5_VLConfig.from_pretrained(folder)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    own = {}
    for name, weight in weights.items():
        if not name.startswith("audio."):
            inner = name.replace("model.", "model.language_model.", 1).replace("visual.", "model.visual.", 1)
            own[inner] = weight
    model.load_state_dict(own)
    return model


def hear(weights: dict[str, Tensor], spectrograms: Tensor) -> Tensor:
    own = below(weights, "audio.")
    states = listen(own, spectrograms)
    heard = read_windows(
        below(own, "qformer.bert."), own["q_tokens"], states, video_salmonn2.QFORMER["num_attention_heads"]
    )
    return F.linear(heard, own["audio_proj.weight"], own["audio_proj.bias"])


def place(kinds: list[int], side: int = 0, seconds: float = 0.0) -> Tensor:
    """Count the positions of one prompt token by token, (3, 1, S), its media being in one run."""
    out, start, seen, heard = [], 0, 0, 0
    for i, kind in enumerate(kinds):
        if kind == 0:
            if i and kinds[i - 1] != 0:
                run = [p for p, k in zip(out, kinds, strict=False) if k]
                start = 1 + (max(p[0] for p in run) if heard else max(map(max, run)))
            out.append((start, start, start))
            start += 1
        elif kind == 3:
            both = 2 in kinds
            out.append((start + heard, start + (0 if both else heard), start + (heard if both else 0)))
            heard += 1
        else:
            step, cell = divmod(seen, side * side)
            late = int(np.float32(np.float32(step) * np.float32(seconds)) * 2)
            out.append((start + late, start + cell // side, start + cell % side))
            seen += 1
    return torch.tensor(out).T.unsqueeze(1)


def by_hand(plain: Any, weights: dict[str, Tensor], inputs: Any, steps: list[int]) -> dict[str, Tensor]:
    """Return embeddings and positions of a prompt about a video, each step followed by a piece of sound."""
    frames = plain.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"]).pooler_output[0]
    sounds = hear(weights, inputs["input_features"]).flatten(0, 1).split(steps)
    turns = [part for pair in zip(frames.chunk(len(steps)), sounds, strict=True) for part in pair]
    media = torch.cat(turns)
    ids = inputs["input_ids"][0].tolist()
    first = ids.index(plain.config.video_token_id)
    embed = plain.get_input_embeddings()
    before, after = ids[:first], ids[first + len(media) :]
    embeds = torch.cat([embed(torch.tensor(before)), media, embed(torch.tensor(after))])[None]
    each = len(frames) // len(steps)
    kinds = [0] * first + [kind for n in steps for kind in [2] * each + [3] * n] + [0] * len(after)
    seconds = float(inputs["second_per_grid_ts"][0])
    return {"inputs_embeds": embeds, "position_ids": place(kinds, round(each**0.5), seconds)}


def test_sound_becomes_tokens_as_in_the_release(loaded, weights, clip):
    inputs = loaded.inputs("What is heard?", audio=clip)
    with torch.inference_mode():
        made = loaded.model.audio(inputs["input_features"])
        check_heard(made, hear(weights, inputs["input_features"]))
    assert inputs.facts[0].audio_tokens == 60 == made.shape[1]


def test_logits_are_those_of_the_parts_put_together_by_hand(loaded, plain, weights, clip):
    inputs = loaded.inputs("What is seen?", video=clip, frames=FEW)
    method = OutRo(gamma=2.0, min_activation=1e-3, median_ratio=1.5)
    with torch.inference_mode():
        # Two steps, two seconds apart: four tokens of sound follow the first, the rest the second.
        given = by_hand(plain, weights, inputs, [4, 56])
        assert given["inputs_embeds"].shape[1] == inputs["input_ids"].shape[1]
        made, wanted = loaded.model(**inputs).logits, plain(**given).logits
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
        louder = {**inputs, "input_features": -inputs["input_features"]}
        assert (loaded.model(**louder).logits - made).abs().max() > 1e-3
        with method(loaded.model) as trace:
            rotated = loaded.model(**inputs).logits
        with method(plain) as own:
            torch.testing.assert_close(rotated, plain(**given).logits, rtol=1e-4, atol=1e-5)
    assert str(trace.sinks) == str(own.sinks)
    assert (rotated - made).abs().max() > 1e-3
    assert find_sinks(loaded.model, **inputs) is not None


def test_without_sound_it_is_qwen2_5_vl_to_the_bit(loaded, plain, clip, picture):
    # After a video of more steps than rows, positions of transformers 5.23 are not those of the release.
    seen: list[dict[str, Any]] = [{"image": picture}, {"video": clip, "audio": False, "frames": Uniform(2)}]
    for media in [{}, *seen]:
        inputs = loaded.inputs("What is seen?", **media)
        options = {"max_new_tokens": 5, "do_sample": False}
        with torch.inference_mode():
            assert torch.equal(loaded.model(**inputs).logits, plain(**inputs).logits)
            assert torch.equal(loaded.model.generate(**inputs, **options), plain.generate(**inputs, **options))
    inputs = loaded.inputs("What is seen?", video=clip, audio=False)
    with torch.inference_mode():
        positions, _ = loaded.model.model.get_rope_index(**inputs)
        given = {**inputs, "position_ids": positions}
        assert torch.equal(loaded.model(**inputs).logits, plain(**given).logits)


@pytest.mark.parametrize(
    ("kinds", "media"),
    [
        ([0, 0, *[2] * 4, 3, *[2] * 4, 3, 3, 0, 0], True),
        ([0, *([2] * 4 + [3]) * 9, 0], True),
        ([0, 0, 0, *[3] * 7, 0, 0], False),
        ([0, *[2] * 80, 0, 0], True),
    ],
)
def test_positions_are_those_of_the_release(kinds, media):
    grid = torch.tensor([[kinds.count(2) // 4, 4, 4]]) if media else torch.zeros(0, 3, dtype=torch.int64)
    types, padding = torch.tensor([kinds]), 3
    mask = F.pad(torch.ones_like(types), (padding, 0)).bool()
    seconds = torch.tensor([0.7]) if media else None
    made, ahead = count_positions(F.pad(types, (padding, 0)), mask, None, grid, seconds, 2, 2)
    wanted = place(kinds, 2, 0.7)
    assert torch.equal(made[:, :, padding:], wanted)
    assert ahead.item() == wanted.max() + 1 - len(kinds)


def test_answers_go_on_where_the_prompt_ended(loaded, clip):
    inputs = loaded.inputs("What is seen?", video=clip, frames=FEW)
    with torch.inference_mode():
        made = loaded.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        ids, types = made[:, :-1], inputs["mm_token_type_ids"]
        whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        whole["mm_token_type_ids"] = F.pad(types, (0, ids.shape[1] - types.shape[1]))
        again = loaded.model(**whole).logits[0, types.shape[1] - 1 :].argmax(-1)
    assert again.tolist() == made[0, types.shape[1] :].tolist()


def test_a_batch_of_unlike_lengths_answers_as_its_questions_alone(loaded, clip):
    asked = ["What?", "What is heard in the middle of the clip, and for how long?"]
    together = loaded.ask(asked, audio=clip, max_new_tokens=5)
    assert [a.text for a in together] == [loaded.ask(q, audio=clip, max_new_tokens=5).text for q in asked]


def test_prompts_are_written_as_in_the_release(loaded, clip):
    def text(**asked: Any) -> str:
        return loaded.tokenizer.decode(loaded.inputs("What?", **asked)["input_ids"][0])

    start, end = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n"
    answer = "<|im_start|>assistant\n"
    assert text() == f"{start}What?{end}{answer}"
    assert text(audio=clip) == f"{start}<|vision_start|>{'<|audio_pad|>' * 60}<|vision_end|>\nWhat?{end}{answer}"
    step = "<|video_pad|>" * 4
    turns = f"{step}{'<|audio_pad|>' * 4}{step}{'<|audio_pad|>' * 56}"
    assert text(video=clip, frames=FEW) == f"{start}<|vision_start|>{turns}<|vision_end|>\nWhat?{end}{answer}"


def test_frames_and_turns_are_those_of_the_release(loaded, clip):
    # Ten a second, spread over all frames and rounded down; a frame that comes twice is taken once.
    assert EveryTenth().select(np.arange(300) / 30).tolist() == np.linspace(0, 299, 100).astype(int).tolist()
    assert EveryTenth().select(np.arange(16) / 8).tolist() == [*range(16)]
    assert len(EveryTenth().select(np.arange(4000) / 25)) == 768
    assert share_sound(60, 3, 0.4) == [0, 1, 59]
    assert share_sound(60, 4, 20.0) == [40, 20, 0, 0]  # The sound ends before the video.
    spans = loaded.spans(loaded.inputs("What?", video=clip, frames=FEW))[0]
    heard = [(s.stop - s.start, s.begins, s.ends) for s in spans if s.modality == "audio"]
    assert heard[:2] == [(1, 0.0, 0.5), (1, 0.5, 1.0)]
    assert heard[-1] == (51, None, None)  # The silence that fills the thirty seconds.


@cache
def silence(folder: Path) -> Path:
    """Save 31 seconds of almost silence, which is more than a piece."""
    import wave

    with wave.open(str(folder / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.random.default_rng(0).integers(-9, 9, 31 * 16_000, dtype=np.int16).tobytes())
    return folder / "long.wav"


def test_a_long_sound_is_heard_in_pieces(loaded, tmp_path):
    inputs = loaded.inputs("What?", audio=silence(tmp_path))
    assert len(inputs["input_features"]) == 2
    assert inputs.facts[0].audio_tokens == 120


def test_it_is_known_by_its_own_key_of_config_json(folder, families, tmp_path):
    assert type(known_adapter(folder)).__name__ == "VideoSALMONN2Plus"
    assert type(families("qwen2_5_vl").model).__name__ == "Qwen2_5_VLForConditionalGeneration"


def test_what_is_not_ported_or_cannot_be_asked_is_refused(folder, loaded, clip, picture, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    written = json.loads((folder / "config.json").read_text())
    written["audio_config"]["second_per_window"] = 0.333333
    (tmp_path / "other" / "config.json").write_text(json.dumps(written))
    with pytest.raises(OmnisinkError, match=r"in windows of 0.333333 s .* ported are 30 s in windows of 0.5 s"):
        load_model(tmp_path / "other")
    with pytest.raises(OmnisinkError, match="ask about the picture without the sound"):
        loaded.inputs("What?", image=picture, audio=clip)
    with pytest.raises(OmnisinkError, match=r"the question holds <\|audio_pad\|>"):
        loaded.inputs("What is <|audio_pad|>?")


def test_commands_find_and_ask(folder, clip):
    model = str(folder)
    found = run("find", str(clip), "What is heard?", "--model", model)
    assert found.returncode == 0, found.stderr
    asked = run("ask", str(clip), "What is heard?", "--model", model, "--compare", "--max-new-tokens", "4")
    assert asked.returncode == 0, asked.stderr
