"""VideoLLaMA 2.1-AV: what it hears, against the released steps written out by hand, from the released names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from omnisink import OmnisinkError, OutRo, load_model
from omnisink.models.context import UnheardWarning
from omnisink.models.facts import check_can_answer
from omnisink.models.loaded import Loaded
from omnisink.models.ports.beats import BEATs, read_beats, renamed
from omnisink.models.ports.fbank import TOKENS, fbank, heard_samples, time_units
from omnisink.verification.ports.beats import beats
from tests.cli.command import run
from tests.models.ports.test_video_llama2 import by_hand, changed

PAGE = Path(__file__).parents[3] / "docs" / "ports.md"


@pytest.fixture(scope="module")
def loaded(families: Callable[[str], Loaded]) -> Loaded:
    return families("videollama2_av")


@pytest.fixture(scope="module")
def folder(loaded: Loaded) -> Path:
    return Path(loaded.name)


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tone of 31 seconds that rises."""
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(16_000 * 31) ** 1.2 / 200).astype(np.float32), 16_000)
    return path


def spectrogram(wave: np.ndarray) -> np.ndarray:
    """Compute Kaldi's log-mel energies frame by frame, bin by bin."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    mel = lambda hertz: 1127.0 * np.log(1.0 + hertz / 700.0)  # noqa: E731
    edges = np.linspace(mel(20.0), mel(8000.0), 130)
    at = mel(np.arange(256) * 16_000 / 512)
    rows = []
    for begin in range(0, len(wave) - 399, 160):
        frame = wave[begin : begin + 400].astype(np.float64) * 32768.0
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512)[:256]) ** 2
        row = []
        for left, center, right in zip(edges, edges[1:], edges[2:], strict=False):
            rising, falling = (at - left) / (center - left), (right - at) / (right - center)
            row.append(power @ np.maximum(0.0, np.minimum(rising, falling)))
        rows.append(np.log(np.maximum(row, np.finfo(np.float32).eps)))
    return np.array(rows)


def bucket(distance: int, buckets: int) -> int:
    half = buckets // 2
    exact, side, size = half // 2, half if distance > 0 else 0, abs(distance)
    if size < exact:
        return side + size
    large = exact + int(math.log(size / exact) / math.log(800 / exact) * (half - exact))
    return side + min(large, half - 1)


def listen(weights: dict[str, Tensor], spectrograms: Tensor) -> Tensor:
    """Compute BEATs from the released names of its weights: (B, T, 128) to (B, N, W)."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    scaled = (spectrograms - 15.41663) / (2 * 6.55582)
    patches = scaled.unfold(1, 16, 16).unfold(2, 16, 16).flatten(1, 2).flatten(2)
    x = linear(norm(patches @ weights["patch_embedding.weight"].flatten(1).T, "layer_norm"), "post_extract_proj")
    direction = weights["encoder.pos_conv.0.weight_v"]
    kernel = weights["encoder.pos_conv.0.weight_g"] * direction / (direction.pow(2).sum((0, 1)) + 1e-6).sqrt()
    near = F.pad(x.mT, (kernel.shape[2] // 2, kernel.shape[2] // 2 - 1))
    near = F.conv1d(near, kernel, weights["encoder.pos_conv.0.bias"], groups=x.shape[2] // kernel.shape[1])
    x = norm(x + F.gelu(near).mT, "encoder.layer_norm")
    table = weights["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    length, heads = x.shape[1], table.shape[1]
    buckets = torch.tensor([bucket(distance, len(table)) for distance in range(-length, length)])
    places = torch.arange(length)
    bias = table[buckets[places - places[:, None] + length]].permute(2, 0, 1)
    depth = sum(name.endswith("fc1.weight") for name in weights)
    for layer in (f"encoder.layers.{i}" for i in range(depth)):
        q, k, v = (linear(x, f"{layer}.self_attn.{n}_proj").unflatten(2, (heads, -1)).transpose(1, 2) for n in "qkv")
        gates = linear(q, f"{layer}.self_attn.grep_linear").unflatten(3, (2, 4)).sum(-1).sigmoid()
        gate = gates[..., :1] * (gates[..., 1:] * weights[f"{layer}.self_attn.grep_a"] - 1.0) + 2.0
        scores = (q @ k.mT) / q.shape[3] ** 0.5 + gate * bias
        attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        scale = (2 * depth) ** 0.25
        x = norm(x * scale + linear(attended, f"{layer}.self_attn.out_proj"), f"{layer}.self_attn_layer_norm")
        x = norm(x * scale + linear(F.gelu(linear(x, f"{layer}.fc1")), f"{layer}.fc2"), f"{layer}.final_layer_norm")
    return x


def test_beats_computes_what_the_release_computes():
    torch.manual_seed(0)
    weights = beats()
    sizes, names = read_beats({name: tuple(weight.shape) for name, weight in weights.items()})
    model = BEATs(**sizes).double()
    own = {renamed(f"model.audio_tower.{n}", names).removeprefix("audio_tower."): w for n, w in weights.items()}
    model.load_state_dict({name: own[name] for name in model.state_dict()})
    # 560 patches: some are further apart than where the last bucket begins, at 450.
    heard = torch.randn(1, 16 * 70, 128) * 6 + 15
    torch.testing.assert_close(
        model(heard.double()),
        listen({n: w.double() for n, w in weights.items()}, heard.double()),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_spectrogram_is_that_of_kaldi():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3000).astype(np.float32) + 0.2
    made = fbank(noise)
    assert made.shape == (2998, 128)
    wanted = spectrogram(np.concatenate([noise, np.zeros(1000, np.float32)]))
    np.testing.assert_allclose(made[: len(wanted)], wanted, rtol=1e-5, atol=1e-4)
    assert np.unique(made[19:]) == pytest.approx(math.log(2**-23))


def test_logits_and_sinks_are_those_of_the_parts_put_together_by_hand(loaded, folder, clip):
    inputs = loaded.inputs("What is heard?", video=clip)
    ids = inputs["input_ids"][0].tolist()
    start = ids.index(loaded.model.config.audio_token_id)
    assert ids[start : start + TOKENS] == [loaded.model.config.audio_token_id] * TOKENS
    weights = load_file(folder / "model.safetensors")
    ears = {n.removeprefix("model.audio_tower."): w for n, w in weights.items() if "audio_tower" in n}
    outer = {n.removeprefix("model.mm_projector_a."): w for n, w in weights.items() if "mm_projector_a" in n}
    with torch.inference_mode():
        # In float32 both are 1e-4 away from this, as attention is sharp in random weights.
        heard = listen({n: w.double() for n, w in ears.items()}, inputs["input_features"].double()).float()
        tokens = F.gelu(F.linear(heard, outer["0.weight"], outer["0.bias"]))
        tokens = F.linear(tokens, outer["2.weight"], outer["2.bias"])
        torch.testing.assert_close(loaded.model.hear(inputs["input_features"]), tokens, rtol=1e-3, atol=1e-3)
        place = ids.index(loaded.model.config.video_token_id)
        decoder, embeds = by_hand(folder, "videollama2_qwen2", inputs["pixel_values_videos"][0], ids, place)
        embeds[:, start : start + TOKENS] = tokens
        plain, wanted = loaded.model(**inputs).logits, decoder(inputs_embeds=embeds).logits
        torch.testing.assert_close(plain, wanted, rtol=1e-3, atol=2e-3)
        silence = {**inputs, "input_features": torch.full_like(inputs["input_features"], -15.9)}
        assert (loaded.model(**silence).logits - plain).abs().max() > 1e-2
        method = OutRo(gamma=2.0, min_activation=1e-3, median_ratio=1.5)
        with method(loaded.model) as trace:
            made = loaded.model(**inputs).logits
        with method(decoder) as own:
            torch.testing.assert_close(made, decoder(inputs_embeds=embeds).logits, rtol=1e-3, atol=2e-3)
        assert str(trace.sinks) == str(own.sinks)
        assert (made - plain).abs().max() > 1e-2


def test_a_video_is_heard_in_pieces_and_a_file_from_its_beginning():
    rate = 16_000
    begins = [int(i * 8.0 / 8 * rate) for i in range(8)]
    ten = heard_samples(10 * rate, of_video=True)
    assert ten.tolist() == [s for b in begins for s in range(b, b + 2 * rate)]
    assert heard_samples(rate, of_video=True).tolist() == list(range(rate)) * 8
    assert heard_samples(40 * rate, of_video=False).tolist() == list(range(30 * rate))
    units = time_units(10 * rate, of_video=True)
    assert sum(count for count, _, _ in units) == TOKENS
    # The second piece begins at 1 s, in the middle of step 12; step 13 is the first that lies in it.
    assert units[8 * 11] == (1, pytest.approx(1.76), pytest.approx(1.92))
    assert units[8 * 13] == (1, pytest.approx(1.08), pytest.approx(1.24))
    assert units[-1] == (TOKENS - 8 * 100, None, None)
    assert time_units(30 * rate, of_video=False)[-1] == (1, pytest.approx(29.76), pytest.approx(29.92))


def test_prompts_are_written_as_in_the_release(loaded, clip, tone):
    def text(**asked: Any) -> str:
        written = loaded.tokenizer.decode(loaded.inputs("What?", **asked)["input_ids"][0])
        return re.sub(r"(<\w+>)\1+", r"\1", written)

    end = "\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    assert text(video=clip) == f"<|im_start|>user\n<video><audio>{end}"
    assert text(video=clip, audio=False) == f"<|im_start|>user\n<video>{end}"
    assert text(audio=clip) == f"<|im_start|>user\n<audio>{end}"
    with pytest.warns(UnheardWarning, match=r"of its 31\.0 s of sound .* hears the first 30"):
        assert text(video=clip, audio=tone) == f"<|im_start|>user\n<video><audio>{end}"


def test_a_batch_of_sound_and_silence_answers_as_its_questions_alone(loaded, clip):
    asked = ["What?", "What is heard, and what is seen?"]
    sounds = [False, True]
    together = loaded.ask(asked, video=clip, audio=sounds, max_new_tokens=4)
    assert [a.text for a in together] == [
        loaded.ask(q, video=clip, audio=sound, max_new_tokens=4).text for q, sound in zip(asked, sounds, strict=True)
    ]


def without_ears(source: Path, target: Path) -> dict[str, Tensor]:
    """Copy a checkpoint without what it hears with, and return that."""
    changed(source, target)
    weights = load_file(target / "model.safetensors")
    ears = {name: weights.pop(name) for name in list(weights) if "audio_tower" in name}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return ears


def test_a_pickled_tower_is_left_alone_until_it_is_converted(loaded, folder, clip, tmp_path, monkeypatch):
    target = tmp_path / "av"
    torch.save(without_ears(folder, target), target / "audio_tower.bin")
    with pytest.warns(UnheardWarning, match="loaded for pictures and videos only: its BEATs .* docs/ports.md"):
        deaf = load_model(target)
    assert deaf.inputs("What?", video=clip).facts[0].audio_tokens == 0
    for refused in (lambda: deaf.inputs("What?", audio=clip), lambda: check_can_answer(target, {"audio"})):
        with pytest.raises(OmnisinkError, match=r"cannot hear: .* converts audio_tower\.bin"):
            refused()
    # As the page says it.
    monkeypatch.chdir(target)
    command = next(line for line in PAGE.read_text().splitlines() if "'audio_tower.bin'" in line)
    exec(command.removeprefix('python -c "').removesuffix('"'))
    check_can_answer(target, {"audio"})
    inputs = loaded.inputs("What is heard?", audio=clip)
    with torch.inference_mode():
        torch.testing.assert_close(load_model(target).model(**inputs).logits, loaded.model(**inputs).logits)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("patch_embedding.weight", (24, 1, 8, 8), r"patches of \[8, 8\]; the released are 16 x 16"),
        ("patch_embedding.bias", (24,), "has patch_embedding.bias, which the released BEATs has not"),
        ("encoder.pos_conv.0.weight_v", None, "not the released BEATs: 'encoder.pos_conv"),
        ("encoder.layers.1.self_attn.grep_a", None, r"lacks 1 weights of VideoLlama2Qwen2.*layers\.1\.self_attn"),
    ],
)
def test_another_beats_is_refused(name, shape, message, folder, tmp_path):
    target = changed(folder, tmp_path / "other")
    weights = load_file(target / "model.safetensors")
    weights.pop(f"model.audio_tower.{name}", None)
    if shape is not None:
        weights[f"model.audio_tower.{name}"] = torch.zeros(shape)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OmnisinkError, match=message):
        load_model(target)


def test_what_it_cannot_be_asked_is_refused(loaded, folder, clip, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 40)).save(tmp_path / "picture.png")
    with pytest.raises(OmnisinkError, match="hears a sound by itself or with a video, not with a picture"):
        loaded.inputs("What?", image=tmp_path / "picture.png", audio=clip)
    with pytest.raises(OmnisinkError, match="the question holds <audio>"):
        loaded.inputs("What is an <audio>?", audio=clip)
    with pytest.raises(OmnisinkError, match="the connector 'linear' for sound"):
        load_model(changed(folder, tmp_path / "other", mm_projector_a_type="linear"))


def test_commands_hear_a_video_and_a_sound(folder, clip, tone):
    asked = run("ask", str(clip), "What is heard?", "--model", str(folder), "--max-new-tokens", "2", "--json")
    assert json.loads(asked.stdout)["media"]["audio_tokens"] == TOKENS, asked.stderr
    found = run("find", str(tone), "What is heard?", "--model", str(folder))
    assert found.returncode == 0, found.stderr
    assert "of its 31.0 s of sound" in " ".join(found.stderr.split())
