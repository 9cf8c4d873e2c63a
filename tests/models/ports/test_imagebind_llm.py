"""ImageBind-LLM: converted releases against the released forward pass, written out in float64."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from omnisink import MediaError, OmnisinkError, OutRo, UnsupportedModelError, find_sinks, load_model
from omnisink.media import Uniform
from omnisink.methods import PAI
from omnisink.models.adapters.imagebind_llm import EndsOfClips
from omnisink.models.loaded import Loaded
from omnisink.models.ports import imagebind_inputs
from omnisink.models.ports.convert_imagebind import convert
from omnisink.verification.ports.imagebind_llm import write_releases
from tests.cli.command import run
from tests.made_once import made_once
from tests.models.ports.released_imagebind import Weights, embed, media_vector, run_llama


def converted(place: Path) -> Path:
    return convert(*write_releases(place), place / "model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Convert tiny releases."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made_once(tmp_path_factory, "ports-imagebind", converted) / "model"


@pytest.fixture(scope="module")
def loaded(folder) -> Loaded:
    return load_model(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """Save a picture that is wider than high."""
    from PIL import Image

    file = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)).save(file)
    return file


def released(folder: Path) -> Weights:
    return {name: weight.double() for name, weight in load_file(folder / "model.safetensors").items()}


def clips_of(loaded: Loaded, inputs: Any) -> list[tuple[str, Tensor]]:
    prompt = inputs.prompts[0]
    return loaded.adapter._clips(loaded, prompt, loaded.adapter.read(loaded, [prompt])[0])


@pytest.fixture(params=["nothing", "picture", "silent video", "video", "sound and picture"])
def asked(request, clip, picture) -> dict[str, Any]:
    return {
        "nothing": {},
        "picture": {"image": picture},
        "silent video": {"video": clip, "audio": False},
        "video": {"video": clip},
        "sound and picture": {"audio": clip, "image": picture},
    }[request.param]


def test_logits_and_answers_are_those_of_the_release(asked, folder, loaded):
    w = released(folder)
    inputs = loaded.inputs("What is it?", **asked)
    clips = clips_of(loaded, inputs)
    vector = media_vector(w, [embed(w, kind, made) for kind, made in clips])
    ids = inputs["input_ids"][0].tolist()
    with torch.inference_mode():
        made = loaded.model(**inputs).logits[0]
        torch.testing.assert_close(made.double(), run_llama(w, ids, vector), rtol=1e-4, atol=1e-5)
        generated = loaded.model.generate(**inputs, max_new_tokens=4, eos_token_id=None, do_sample=False)[0].tolist()
    for length in range(len(ids), len(generated)):  # The media are there at every step.
        assert generated[length] == run_llama(w, generated[:length], vector)[-1].argmax()
    assert (run_llama(w, ids, -vector) - made).abs().max() > 1e-3


def test_outro_acts_on_heads_before_the_value_of_media_is_added(loaded, picture):
    # The value is the same at every token, so that a plain Llama has it as the bias of its output projection.
    inputs = loaded.inputs("What is it?", image=picture)
    model, media = loaded.model, inputs.pop("media_embeds")
    plain = transformers.LlamaForCausalLM(model.config).eval()
    report = plain.load_state_dict(model.state_dict(), strict=False)
    assert not report.missing_keys
    method = OutRo(gamma=2.0, min_activation=1e-3, median_ratio=1.5)
    with torch.inference_mode():
        for layer, own in zip(plain.model.layers[1:], model.model.layers[1:], strict=True):
            layer.self_attn.o_proj.bias += own.self_attn.media_output(media).flatten()
        with method(model) as trace:
            made = model(**inputs, media_embeds=media).logits
        with method(plain) as wanted_trace:
            wanted = plain(**inputs).logits
        assert str(trace.sinks) == str(wanted_trace.sinks)
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
        assert (made - model(**inputs, media_embeds=media).logits).abs().max() > 1e-3
    assert find_sinks(model, **inputs, media_embeds=media) is not None


def test_a_batch_of_unlike_questions_and_media_answers_as_its_questions_alone(loaded, clip, picture):
    asked = ["What?", "What is to be seen in it, and for how long?", "And now?"]
    files = {"image": [picture, None, None], "video": [None, clip, None]}
    together = loaded.ask(asked, **files, max_new_tokens=6)
    alone = [
        loaded.ask(q, **{name: column[i] for name, column in files.items()}, max_new_tokens=6)
        for i, q in enumerate(asked)
    ]
    assert [a.text for a in together] == [a.text for a in alone]
    assert {(a.facts.video_tokens, a.facts.image_tokens, a.facts.audio_tokens) for a in together} == {(0, 0, 0)}
    assert together[1].facts.audio_seconds == pytest.approx(4.0, abs=0.1)


def test_the_prompt_is_that_of_the_release(loaded, picture):
    def text(**asked: Any) -> str:
        return loaded.tokenizer.decode(loaded.inputs("Who?", image=picture, **asked)["input_ids"][0])

    wanted = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nWho?\n\n### Response:"
    )
    assert text() == "<|im_start|>" + wanted
    assert text(system="Be brief.") == "<|im_start|>Be brief.\n\n" + wanted
    inputs = loaded.inputs("Who?", image=picture)
    assert {span.modality for span in loaded.spans(inputs)[0]} == {"text"}


@pytest.mark.parametrize(("frames", "rate"), [(300, 30), (100, 25), (20, 25), (3, 0.25), (1, 25), (401, 29.97)])
def test_clips_of_a_video_are_found_again_among_the_frames_that_were_kept(frames, rate):
    choice, times = EndsOfClips(), np.arange(frames) / rate
    pairs, kept = choice.pairs(times, frames), choice.select(times)
    assert kept.tolist() == sorted(i for pair in pairs for i in pair)
    again = choice.pairs(times[kept], frames)
    assert [(times[kept][a], times[kept][b]) for a, b in again] == [(times[a], times[b]) for a, b in pairs]
    if frames == 300:
        assert pairs == [(0, 59), (60, 119), (120, 179), (180, 239), (240, 299)]
    if frames == 100:
        assert pairs == [(0, 49), (13, 62), (25, 74), (38, 87), (50, 99)]


def test_pictures_videos_and_sounds_are_cut_as_in_the_release():
    noise = np.random.default_rng(0)
    frames = noise.integers(0, 255, (4, 60, 100, 3), dtype=np.uint8)
    made = imagebind_inputs.see_video(frames, [(0, 1), (2, 3)], 28)
    assert made.shape == (6, 3, 2, 28, 28)
    # 60 x 100 becomes 28 x 46, cut at 0, 9 and 18.
    whole = F.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255, (28, 46), mode="bilinear")
    whole = (whole - torch.tensor(imagebind_inputs._MEAN)[:, None, None]) / torch.tensor(imagebind_inputs._STD)[
        :, None, None
    ]
    torch.testing.assert_close(made[4], whole[2:, :, :, 9:37].transpose(0, 1))
    tall = imagebind_inputs.see_video(frames.transpose(0, 2, 1, 3).copy(), [(0, 1), (2, 3)], 28)
    torch.testing.assert_close(tall, made.mT)
    samples = noise.normal(size=16_000 * 5).astype(np.float32)
    heard = imagebind_inputs.hear(samples)
    assert heard.shape == (3, 1, 128, 204)
    torch.testing.assert_close(heard[1], imagebind_inputs.hear(samples[24_000:56_000])[0])
    # Two seconds are 198 frames of 25 ms; the rest is 0, before the mean and the deviation.
    assert heard[..., 198:].unique().tolist() == pytest.approx([4.268 / 9.138])
    assert heard[..., 197].unique().numel() > 100


def test_frames_of_your_choice_make_clips_two_by_two(loaded, clip):
    inputs = loaded.inputs("What?", video=clip, audio=False, frames=Uniform(5))
    ((_, clips),) = clips_of(loaded, inputs)
    assert len(clips) == 9
    assert torch.equal(clips[8, :, 0], clips[8, :, 1])
    assert not torch.equal(clips[0, :, 0], clips[0, :, 1])


def changed(folder: Path, target: Path, weights: Any = None, **settings: Any) -> Path:
    """Copy a checkpoint, with other weights and settings."""
    shutil.copytree(folder, target)
    written = json.loads((target / "config.json").read_text()) | settings
    (target / "config.json").write_text(json.dumps(written))
    if weights is not None:
        kept = load_file(target / "model.safetensors")
        weights(kept)
        save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_the_checkpoint_of_the_first_training_has_no_lora_and_no_biases(folder, tmp_path):
    def cut(weights: Weights) -> None:
        for name in [n for n in weights if "lora" in n or (n.startswith("llama.") and n.endswith("bias"))]:
            del weights[name]

    other = changed(folder, tmp_path / "first", cut, lora_rank=0)
    loaded, w = load_model(other), released(other)
    inputs = loaded.inputs("What is it?")
    vector = media_vector(w, [embed(w, "vision", torch.zeros(1, 3, 2, 28, 28))])
    with torch.inference_mode():
        made = loaded.model(**inputs).logits[0].double()
    torch.testing.assert_close(made, run_llama(w, inputs["input_ids"][0].tolist(), vector), rtol=1e-4, atol=1e-5)


def test_a_model_that_was_saved_is_loaded_again(loaded, picture, tmp_path):
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    inputs, again = loaded.inputs("What is it?", image=picture), load_model(tmp_path)
    with torch.inference_mode():
        made = again.model(**again.inputs("What is it?", image=picture)).logits
        torch.testing.assert_close(made, loaded.model(**inputs).logits, rtol=1e-5, atol=1e-5)


def test_checkpoints_with_other_weights_are_refused(folder, tmp_path):
    with pytest.raises(OmnisinkError, match=r"1 weights that .* no place for here.* connector\.norms\.0\.bias"):
        load_model(changed(folder, tmp_path / "a", lambda w: w.update({"image_bind_norm_1.bias": torch.zeros(32)})))
    with pytest.raises(OmnisinkError, match=r"lacks 1 weights of ImageBindLlama.*layers\.2\.self_attn\.gate"):
        load_model(changed(folder, tmp_path / "b", lambda w: w.pop("llama.layers.2.attention.gate")))
    lone = changed(folder, tmp_path / "c")
    (lone / "tokenizer.json").unlink()
    with pytest.raises(OmnisinkError, match="has no tokenizer.json.*sentencepiece"):
        load_model(lone)


def test_what_cannot_be_converted_is_refused(folder, tmp_path):
    source = folder.parent
    given = partial(convert, source / "llama" / "7B")
    torch.save({"model": {"x": torch.zeros(1)}, "run": os.system}, tmp_path / "code.pth")
    with pytest.raises(OmnisinkError, match="code.pth holds more than tensors"):
        given(tmp_path / "code.pth", source / "imagebind.pth", tmp_path / "out")
    with pytest.raises(OmnisinkError, match="image_bind_proj.weight' is in none of these checkpoints"):
        given(source / "imagebind.pth", source / "tuned.pth", tmp_path / "out")
    with pytest.raises(OmnisinkError, match="has 0 .pth files"):
        convert(tmp_path / "nothing", source / "tuned.pth", source / "imagebind.pth", tmp_path / "out")
    (tmp_path / "text.pth").write_text("")
    with pytest.raises(OmnisinkError, match="text.pth is not a checkpoint of PyTorch"):
        given(tmp_path / "text.pth", source / "imagebind.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sound_without_a_frame_is_refused(loaded, tmp_path):
    import wave

    with wave.open(str(tmp_path / "click.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 399))
    with pytest.raises(MediaError, match="399 samples, and a frame of the spectrogram has 400"):
        loaded.inputs("What?", audio=tmp_path / "click.wav")


def test_methods_on_tokens_of_pictures_are_refused(loaded, picture):
    with pytest.raises(UnsupportedModelError, match="names no token that stands for them"):
        loaded.ask("What?", image=picture, method=PAI())


def test_commands_find_ask_and_evaluate(folder, clip, picture, tmp_path):
    model = ["--model", str(folder)]
    found = run("find", str(picture), "What is it?", *model)
    assert found.returncode == 0, found.stderr
    assert "media tokens: none: this model takes media as one vector" in found.stderr
    said = json.loads(run("find", str(clip), "What is it?", *model, "--json").stdout)
    assert {span["modality"] for span in said["spans"]} == {"text"}
    assert said["media_tokens"].startswith("none")
    asked = run("ask", str(clip), "What is it?", *model, "--compare", "--max-new-tokens", "4")
    assert asked.returncode == 0, asked.stderr
    mine = tmp_path / "mine.jsonl"
    question = {"question": "What is it?", "choices": ["a", "b"], "answer": "A"}
    files = [{"video": Path(shutil.copy(clip, tmp_path)).name}, {"image": Path(shutil.copy(picture, tmp_path)).name}]
    mine.write_text("\n".join(json.dumps({**question, **file, "id": str(i)}) for i, file in enumerate(files)))
    chosen = ["--task", str(mine), "--methods", "baseline,outro", "--out", str(tmp_path / "out")]
    done = run("eval", *chosen, *model, "--no-page")
    assert done.returncode == 0, done.stderr
