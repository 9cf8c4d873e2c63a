"""video-SALMONN 2: a checkpoint with the released names against transformers' own parts, put together by hand."""

from __future__ import annotations

import json
import shutil
import wave
from dataclasses import replace
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
from omnisink.models.adapters.video_salmonn2 import EverySecond, sources_of
from omnisink.models.loaded import Loaded
from omnisink.questions.prompt import Prompt
from omnisink.verification.ports import video_salmonn2
from tests.cli.command import run
from tests.made_once import made_once
from tests.models.ports.hearing import below, listen, read_windows

ASKED = "What is seen?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made_once(tmp_path_factory, "ports-video_salmonn_2", video_salmonn2.video_salmonn_2)


@pytest.fixture(scope="module")
def loaded(folder) -> Loaded:
    return load_model(folder)


@pytest.fixture(scope="module")
def weights(folder) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def plain(folder, weights):
    """Build transformers' Qwen2 from the weights that are its own."""
    settings = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen2"}
    settings.pop("rope_scaling")
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config.from_dict(settings)).eval()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model


def line(weights: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def see(weights: dict[str, Tensor], folder: Path, frames: Tensor) -> Tensor:
    """Return the tokens of frames, (F, 6, W): two rows of two, each with a line break."""
    eyes = transformers.SiglipVisionModel(transformers.SiglipVisionConfig.from_pretrained(folder / "siglip-tiny"))
    own = "vision_model." if hasattr(eyes, "vision_model") else ""
    start = "model.vision_tower.vision_tower.vision_model."
    eyes.eval().load_state_dict({own + n: w for n, w in below(weights, start).items()}, strict=False)
    kept: list[Any] = []
    body = getattr(eyes, "vision_model", eyes)
    # The checkpoint has two of its three layers, and nothing that comes after the second is looked at.
    body.encoder.layers[1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    eyes(frames)
    patches = kept[0] if torch.is_tensor(kept[0]) else kept[0][0]
    tokens = line(weights, F.gelu(line(weights, patches, "model.mm_projector.0")), "model.mm_projector.2")
    grid = tokens.unflatten(1, (5, 5))[:, :4, :4].unflatten(1, (2, 2)).unflatten(3, (2, 2)).amax((2, 4))
    rows = [torch.cat([row, weights["model.image_newline"].expand(len(grid), 1, -1)], 1) for row in grid.unbind(1)]
    return torch.cat(rows, dim=1)


def hear(weights: dict[str, Tensor], spectrograms: Tensor) -> Tensor:
    """Return the tokens of a sound of one piece, (60, W)."""
    states = listen(below(weights, "speech_encoder."), spectrograms)
    states = F.layer_norm(states, states.shape[-1:], weights["ln_speech.weight"], weights["ln_speech.bias"])
    bert = below(weights, "speech_Qformer.bert.")
    tokens = line(weights, read_windows(bert, weights["speech_query_tokens"], states, 12), "speech_llama_proj")
    return line(weights, F.gelu(line(weights, tokens, "final_linear.0")), "final_linear.2")[0]


def by_hand(plain: Any, weights: dict[str, Tensor], folder: Path, inputs: Any, texts: list[str]) -> Tensor:
    """Return the embeddings of a prompt about a clip of four seconds, with what stands after each frame."""
    made = transformers.AutoTokenizer.from_pretrained(folder)

    def words(text: str) -> Tensor:
        return plain.get_input_embeddings()(torch.tensor(made.encode(text, add_special_tokens=False)))

    frames = see(weights, folder, inputs["pixel_values_videos"])
    parts = [words("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")]
    if "input_features" in inputs:
        each = -(-60 // len(frames))
        sound = hear(weights, inputs["input_features"])
        spread = sound[[i * 60 // (each * len(frames)) for i in range(each * len(frames))]]
        parts += [part for pair in zip(frames, spread.chunk(len(frames)), strict=True) for part in pair]
    else:
        parts += [part for frame, text in zip(frames, texts, strict=True) for part in (frame, words(text))]
    parts += [words("\n"), words(f"\n{ASKED}<|im_end|>\n<|im_start|>assistant\n")]
    return torch.cat(parts)[None]


@pytest.mark.parametrize("count", [4, 7])
@pytest.mark.parametrize("sound", [True, False])
def test_logits_are_those_of_the_parts_put_together_by_hand(count, sound, loaded, plain, weights, folder, clip):
    inputs = loaded.inputs(ASKED, video=clip, audio=None if sound else False, frames=Uniform(count))
    method = OutRo(gamma=2.0, min_activation=1e-3, median_ratio=1.5)
    times = [str(round(4 / count * i, 1)) for i in range(1, count + 1)]
    with torch.inference_mode():
        embeds = by_hand(plain, weights, folder, inputs, times)
        assert embeds.shape[1] == inputs["input_ids"].shape[1]
        made, wanted = loaded.model(**inputs).logits, plain(inputs_embeds=embeds).logits
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
        name = "input_features" if sound else "pixel_values_videos"
        assert (loaded.model(**{**inputs, name: -inputs[name]}).logits - made).abs().max() > 1e-3
        with method(loaded.model) as trace:
            rotated = loaded.model(**inputs).logits
        with method(plain) as own:
            torch.testing.assert_close(rotated, plain(inputs_embeds=embeds).logits, rtol=1e-4, atol=1e-5)
    assert str(trace.sinks) == str(own.sinks)
    assert (rotated - made).abs().max() > 1e-3
    assert find_sinks(loaded.model, **inputs) is not None


def test_pieces_of_a_long_sound_know_their_place(loaded, tmp_path):
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.random.default_rng(0).integers(-99, 99, 61 * 16_000, dtype=np.int16).tobytes())
    inputs = loaded.inputs("What?", audio=tmp_path / "long.wav")
    assert inputs.facts[0].audio_tokens == 180
    with torch.inference_mode():
        made = loaded.model.hear(inputs["input_features"], inputs["audio_pieces"])
        bare = loaded.model.hearing(inputs["input_features"])
    rates = 10_000.0 ** (-torch.arange(0, made.shape[-1], 2) / made.shape[-1])
    wanted = torch.stack([rates.sin(), rates.cos()], dim=1).flatten()  # Of the place 1, which the third piece has.
    torch.testing.assert_close((made - bare)[2, 7], wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(made[0], bare[0])
    assert (made - bare)[1, 0].round(decimals=4).tolist() == [0.0, 1.0] * (made.shape[-1] // 2)


def test_times_of_unlike_lengths_are_filled_with_nothing(loaded, clip):
    video = loaded.adapter.read(loaded, [Prompt("What?", video=clip, frames=Uniform(12))])[0].video
    longer = replace(video, record=replace(video.record, frames_total=12, average_fps=1.0))
    blank = loaded.model.config.video_blank_token_id
    times = loaded.adapter._times(loaded, longer)
    assert [loaded.tokenizer.decode(ids) for ids in times[8:10]] == ["9.0<blank>", "10.0"]
    kept: list[Tensor] = []
    hook = loaded.model.model.register_forward_pre_hook(
        lambda _m, _a, options: kept.append(options["inputs_embeds"]), with_kwargs=True
    )
    loaded.model(input_ids=torch.tensor([[5, blank]]))
    hook.remove()
    assert kept[0][0, 1].abs().max() == 0 < kept[0][0, 0].abs().max()


def test_prompts_are_written_as_in_the_release(loaded, clip):
    def text(**asked: Any) -> str:
        return loaded.tokenizer.decode(loaded.inputs("What?", **asked)["input_ids"][0])

    start, end = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n"
    answer = "<|im_start|>assistant\n"
    frame, heard = "<video>" * 6, "<audio>" * 15
    timed = "".join(f"{frame}{i}.0" for i in range(1, 5))
    assert text() == f"{start}What?{end}{answer}"
    assert text(audio=clip) == f"{start}{'<audio>' * 60}\n\nWhat?{end}{answer}"
    assert text(video=clip) == f"{start}{(frame + heard) * 4}\n\nWhat?{end}{answer}"
    assert text(video=clip, audio=False) == f"{start}{timed}\n\nWhat?{end}{answer}"


def test_frames_and_sound_are_chosen_as_in_the_release(loaded, clip):
    assert EverySecond().select(np.arange(300) / 29.97).tolist() == [*range(0, 300, 30)]
    chosen = EverySecond().select(np.arange(5000) / 25.0).tolist()
    assert chosen == np.linspace(0, 4999, 110).astype(int).tolist()
    media = loaded.adapter.read(loaded, [Prompt("What?", video=clip, sound=clip)])[0]
    assert len(media.samples) == 64_000  # The file has 171 samples more than its video.
    short = replace(media.video, record=replace(media.video.record, frames_total=11, average_fps=10.0))
    spread, rest = sources_of(60, short)
    assert (len(spread), rest) == (56, [55, 56, 57, 58, 59])
    spans = loaded.spans(loaded.inputs("What?", video=clip))[0]
    heard = [(s.stop - s.start, s.begins, s.ends) for s in spans if s.modality == "audio"]
    assert heard[:3] == [(1, 0.0, 0.5), (1, 0.5, 1.0), (1, 1.0, 1.5)]
    assert heard[-1] == (15, None, None)


def test_a_batch_of_unlike_lengths_answers_as_its_questions_alone(loaded, clip):
    asked = ["What?", "What is heard in the middle of the clip, and for how long?"]
    for media in ({"video": clip, "audio": False}, {"audio": clip}):
        together = loaded.ask(asked, **media, max_new_tokens=5)
        assert [a.text for a in together] == [loaded.ask(q, **media, max_new_tokens=5).text for q in asked]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mm_newline_position": "one_token"}, "has mm_newline_position 'one_token' .* ported are grid"),
        ({"second_per_window": 0.333333}, "ported are 30 s in windows of 0.5 s"),
        ({"whisper_path": "openai/whisper-small"}, "hears with openai/whisper-small .* ported is Whisper large v3"),
    ],
)
def test_what_is_not_ported_is_named(settings, message, folder, tmp_path):
    written = json.loads((folder / "config.json").read_text())
    written["model_args"] |= settings
    (tmp_path / "other").mkdir()
    for file in folder.iterdir():
        (shutil.copytree if file.is_dir() else shutil.copy)(file, tmp_path / "other" / file.name)
    (tmp_path / "other" / "config.json").write_text(json.dumps(written))
    with pytest.raises(OmnisinkError, match=message):
        load_model(tmp_path / "other")


def test_what_it_cannot_be_asked_is_refused(loaded, clip):
    with pytest.raises(OmnisinkError, match="two frames or more"):
        loaded.inputs("What?", video=clip, frames=Uniform(1))
    with pytest.raises(OmnisinkError, match="cannot see: the family takes no image"):
        loaded.inputs("What?", image=clip)
    with pytest.raises(OmnisinkError, match="the question holds <blank>"):
        loaded.inputs("What is <blank>?", video=clip)


def test_commands_find_and_ask(folder, clip):
    model = str(folder)
    found = run("find", str(clip), "What is heard?", "--model", model)
    assert found.returncode == 0, found.stderr
    asked = run("ask", str(clip), "What is heard?", "--model", model, "--compare", "--max-new-tokens", "4")
    assert asked.returncode == 0, asked.stderr
