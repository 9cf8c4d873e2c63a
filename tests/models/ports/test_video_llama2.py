"""VideoLLaMA 2: a checkpoint with the released names against transformers' own parts, put together by hand."""

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
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from omnisink import OmnisinkError, OutRo, find_sinks, load_model
from omnisink.media import Uniform
from omnisink.models.adapters.video_llama2 import MiddleOfPieces
from omnisink.models.loaded import Loaded
from omnisink.verification.ports import video_llama2
from tests.cli.command import run
from tests.made_once import made_once

KINDS = ["videollama2_qwen2", "videollama2_mistral"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that makes a checkpoint, each once."""

    def make(kind: str) -> Path:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return made_once(tmp_path_factory, f"ports-{kind}", getattr(video_llama2, kind))

    return make


@pytest.fixture(scope="module")
def models(folders):
    """Return a function that loads a checkpoint, each once."""
    return cache(lambda kind: load_model(folders(kind)))


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """Save a picture that is wider than high."""
    from PIL import Image

    file = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)).save(file)
    return file


def connect(weights: dict[str, Tensor], patches: Tensor, padding: int) -> Tensor:
    """Compute the connector from the released names of its weights: (T, P, D) to (N, W)."""

    def at(name: str) -> Tensor:
        return weights[f"model.mm_projector.{name}"]

    def convolve(x: Tensor, name: str, **options: Any) -> Tensor:
        x = F.conv2d(x, at(f"{name}.conv.weight"), **options).permute(0, 2, 3, 1)
        scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return (scaled * at(f"{name}.bn.weight") + at(f"{name}.bn.bias")).permute(0, 3, 1, 2)

    def stage(x: Tensor, name: str) -> Tensor:
        for block in (f"{name}.b{i}" for i in range(1, 5)):
            left = convolve(x, f"{block}.downsample") if x.shape[1] != len(at("readout.0.bias")) else x
            y = F.silu(convolve(x, f"{block}.conv1"))
            y = F.silu(convolve(y, f"{block}.conv2", padding=1, groups=y.shape[1]))
            gate = y.mean((2, 3), keepdim=True)
            gate = F.silu(F.conv2d(gate, at(f"{block}.se.fc1.weight"), at(f"{block}.se.fc1.bias")))
            gate = F.conv2d(gate, at(f"{block}.se.fc2.weight"), at(f"{block}.se.fc2.bias")).sigmoid()
            x = F.silu(convolve(y * gate, f"{block}.conv3") + left)
        return x

    side = round(patches.shape[1] ** 0.5)
    x = stage(patches.mT.unflatten(2, (side, side)), "s1").transpose(0, 1)
    x = F.silu(F.conv3d(x[None], at("sampler.0.weight"), at("sampler.0.bias"), stride=2, padding=padding))[0]
    x = stage(x.transpose(0, 1), "s2").permute(0, 2, 3, 1).flatten(0, 2)
    x = F.gelu(F.linear(x, at("readout.0.weight"), at("readout.0.bias")))
    return F.linear(x, at("readout.2.weight"), at("readout.2.bias"))


def by_hand(folder: Path, kind: str, pixels: Tensor, ids: list[int], place: int) -> tuple[Any, Tensor]:
    """Return transformers' own decoder, and embeddings with the tokens of (T, 3, H, W) in the place of some ids."""
    weights = load_file(folder / "model.safetensors")
    qwen = kind == "videollama2_qwen2"
    eyes_class, config_class = (
        (transformers.SiglipVisionModel, transformers.SiglipVisionConfig)
        if qwen
        else (transformers.CLIPVisionModel, transformers.CLIPVisionConfig)
    )
    eyes = eyes_class(config_class.from_pretrained(folder / ("siglip-tiny" if qwen else "clip-tiny"))).eval()
    start = "model.vision_tower.vision_tower.vision_model."
    own = "vision_model." if hasattr(eyes, "vision_model") else ""
    eyes.load_state_dict({own + n.removeprefix(start): w for n, w in weights.items() if n.startswith(start)})
    kept: list[Any] = []
    body = getattr(eyes, "vision_model", eyes)
    body.encoder.layers[-2].register_forward_hook(lambda _m, _i, out: kept.append(out))
    eyes(pixels)
    patches = kept[0] if torch.is_tensor(kept[0]) else kept[0][0]
    tokens = connect(weights, patches if qwen else patches[:, 1:], padding=0 if qwen else 1)
    decoder_class = transformers.Qwen2ForCausalLM if qwen else transformers.MistralForCausalLM
    settings = json.loads((folder / "config.json").read_text())
    settings["model_type"] = "qwen2" if qwen else "mistral"
    decoder = decoder_class(decoder_class.config_class.from_dict(settings)).eval()
    decoder.load_state_dict({n: w for n, w in weights.items() if "_tower" not in n and "projector" not in n})
    before, after = ids[:place], ids[place + len(tokens) :]
    embed = decoder.get_input_embeddings()
    return decoder, torch.cat([embed(torch.tensor(before)), tokens, embed(torch.tensor(after))])[None]


@pytest.mark.parametrize("medium", ["video", "image"])
def test_logits_are_those_of_the_parts_put_together_by_hand(kind, medium, folders, clip, picture, models):
    loaded = models(kind)
    inputs = loaded.inputs("What is seen?", **{medium: clip if medium == "video" else picture})
    pixels = inputs["pixel_values_videos"][0] if medium == "video" else inputs["pixel_values"].expand(4, -1, -1, -1)
    span = next(s for s in loaded.spans(inputs)[0] if s.modality == medium)
    with torch.inference_mode():
        decoder, embeds = by_hand(folders(kind), kind, pixels, inputs["input_ids"][0].tolist(), span.start)
        assert embeds.shape[1] == inputs["input_ids"].shape[1]
        wanted, made = decoder(inputs_embeds=embeds).logits, loaded.model(**inputs).logits
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
        # The media matter: another picture gives other logits.
        name = "pixel_values_videos" if medium == "video" else "pixel_values"
        assert (loaded.model(**{**inputs, name: -inputs[name]}).logits - made).abs().max() > 1e-3


def test_outro_acts_as_on_the_decoder_itself(kind, folders, clip, models):
    loaded = models(kind)
    method = OutRo(gamma=2.0, min_activation=1e-3, median_ratio=1.5)
    inputs = loaded.inputs("What is seen?", video=clip)
    span = next(s for s in loaded.spans(inputs)[0] if s.modality == "video")
    with torch.inference_mode():
        decoder, embeds = by_hand(
            folders(kind), kind, inputs["pixel_values_videos"][0], inputs["input_ids"][0].tolist(), span.start
        )
        plain = loaded.model(**inputs).logits
        with method(loaded.model) as trace:
            made = loaded.model(**inputs).logits
        with method(decoder) as own:
            wanted = decoder(inputs_embeds=embeds).logits
    assert str(trace.sinks) == str(own.sinks)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
    assert (made - plain).abs().max() > 1e-3
    assert find_sinks(loaded.model, **inputs) is not None


def test_a_batch_of_unlike_lengths_answers_as_its_questions_alone(kind, models, clip):
    loaded = models(kind)
    asked = ["What?", "What is seen in the middle of the clip, and for how long?"]
    together = loaded.ask(asked, video=clip, max_new_tokens=6)
    assert [a.text for a in together] == [loaded.ask(q, video=clip, max_new_tokens=6).text for q in asked]


def test_a_repetition_penalty_looks_at_new_tokens_as_in_the_release(kind, models, clip):
    loaded = models(kind)
    inputs = loaded.inputs("What is seen?", video=clip)
    options = {"max_new_tokens": 8, "do_sample": False, "repetition_penalty": 1.7}
    with torch.inference_mode():
        embeds = loaded.model._embed(inputs["input_ids"], None, inputs["pixel_values_videos"])
        wanted = loaded.model.generate(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], **options)
        made = loaded.model.generate(**inputs, **options)
    assert made[0, inputs["input_ids"].shape[1] :].tolist() == wanted[0].tolist()


def test_prompts_are_written_as_in_the_release(models, clip, picture):
    qwen, mistral = map(models, KINDS)

    def text(loaded: Loaded, **asked: Any) -> str:
        return loaded.tokenizer.decode(loaded.inputs("What?", **asked)["input_ids"][0])

    end = "<|im_end|>\n<|im_start|>assistant\n"
    assert text(qwen) == f"<|im_start|>user\n\nWhat?{end}"
    assert text(qwen, video=clip) == f"<|im_start|>user\n<video><video>\nWhat?{end}"
    assert text(qwen, image=picture) == f"<|im_start|>user\n<image><image>\nWhat?{end}"
    assert text(mistral, system="") == "[INST] \nWhat? [/INST]"
    assert text(mistral, system="Be brief.") == "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n\nWhat? [/INST]"
    own = text(mistral, video=clip)
    assert own.startswith("[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as ")
    assert own.endswith("false information.\n<</SYS>>\n\n" + "<video>" * 12 + "\nWhat? [/INST]")


def test_frames_are_the_middle_of_equal_pieces():
    # The indices that the released code computes for these numbers of frames.
    assert MiddleOfPieces(8).select(np.arange(300.0)).tolist() == [19, 56, 93, 131, 168, 206, 243, 280]
    assert MiddleOfPieces(4).select(np.arange(3.0)).tolist() == [0, 1, 1, 2]


def test_times_of_steps_follow_the_padding_of_the_connector(models, clip):
    frames = Uniform(4)
    for kind, firsts in (("videollama2_qwen2", [0, 2]), ("videollama2_mistral", [0, 1, 3])):
        loaded = models(kind)
        inputs = loaded.inputs("What?", video=clip, frames=frames)
        begins = [b for b, _ in inputs.facts[0].grid_times]
        assert begins == pytest.approx([loaded.adapter.read(loaded, inputs.prompts)[0].video.times[i] for i in firsts])


def changed(folder: Path, target: Path, **settings: Any) -> Path:
    """Copy a checkpoint with other settings."""
    shutil.copytree(folder, target)
    written = json.loads((target / "config.json").read_text()) | settings
    (target / "config.json").write_text(json.dumps(written))
    return target


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mm_projector_type": "spatial_conv"}, "has the connector 'spatial_conv'.*ported are stc_connector"),
        ({"mm_vision_tower": None}, "names no vision tower"),
        ({"mm_vision_tower": "nobody/clip-x"}, "vision tower nobody/clip-x is neither a folder nor in the local Hub"),
        ({"mm_vision_select_feature": "cls_patch"}, "more than patches"),
        ({"model_type": "videollama2_mixtral"}, "does not recognize this architecture"),
    ],
)
def test_what_is_not_ported_is_named(settings, message, folders, tmp_path):
    with pytest.raises(OmnisinkError, match=message):
        load_model(changed(folders("videollama2_mistral"), tmp_path / "other", **settings))


def test_a_checkpoint_without_a_part_is_refused(folders, tmp_path):
    folder = changed(folders("videollama2_mistral"), tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    del weights["model.mm_projector.s2.b3.conv2.conv.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OmnisinkError, match=r"lacks 1 weights of VideoLlama2Mistral.*mm_projector\.s2"):
        load_model(folder)


def test_what_it_cannot_be_asked_is_refused(models, clip, picture):
    loaded = models("videollama2_qwen2")
    with pytest.raises(
        OmnisinkError, match="cannot hear: the family takes no audio. Of VideoLLaMA 2.1-AV, its BEATs and"
    ):
        loaded.inputs("What?", audio=clip)
    with pytest.raises(OmnisinkError, match="one of them at a time"):
        loaded.inputs("What?", video=clip, image=picture)
    with pytest.raises(OmnisinkError, match="two or more; these have \\[1\\]"):
        loaded.inputs("What?", video=clip, frames=Uniform(1))
    with pytest.raises(OmnisinkError, match="the question holds <video>"):
        loaded.inputs("What is a <video>?", video=clip)


def test_commands_find_ask_and_evaluate(folders, clip, tmp_path):
    shutil.copy(clip, tmp_path)
    mine = tmp_path / "mine.jsonl"
    mine.write_text(
        json.dumps({"question": "What is seen?", "video": clip.name, "choices": ["a", "b"], "answer": "A", "id": "1"})
    )
    model = str(folders("videollama2_qwen2"))
    found = run("find", str(clip), "What is seen?", "--model", model)
    assert found.returncode == 0, found.stderr
    asked = run("ask", str(clip), "What is seen?", "--model", model, "--compare", "--max-new-tokens", "4")
    assert asked.returncode == 0, asked.stderr
    done = run(
        "eval",
        "--task",
        str(mine),
        "--out",
        str(tmp_path / "out"),
        "--model",
        model,
        "--methods",
        "baseline,outro",
        "--no-page",
    )
    assert done.returncode == 0, done.stderr
