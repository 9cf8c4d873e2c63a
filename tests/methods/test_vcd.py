"""Contrast with noisy pictures and sound: the noise, and every family that sees or hears."""

from __future__ import annotations

import math

import pytest
import torch

from omnisink import OmnisinkError, UnsupportedModelError
from omnisink.maths.noise import noisy, share_of_signal
from omnisink.methods.plausible import PlausibleTokens
from omnisink.methods.registry import parse_method
from omnisink.methods.vcd import VCD, with_noise
from omnisink.verification.families import FAMILIES
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import reader, tiny

SEES = [n for n, f in FAMILIES.items() if f.multimodal_inputs is not None and {"image", "video"} & set(f.modalities)]
HEARS = [n for n, f in FAMILIES.items() if f.multimodal_inputs is not None and "audio" in f.modalities]


def test_what_is_left_of_the_signal_follows_the_schedule():
    left = 1.0
    for step in range(1000):
        variance = 1e-5 + (5e-3 - 1e-5) / (1 + math.exp(6 - 12 * step / 999))
        left *= 1 - variance
        if step in (0, 1, 499, 500, 999):
            assert share_of_signal(step) == pytest.approx(left, rel=1e-9)
    assert share_of_signal(0) > 0.9999
    assert share_of_signal(999) < 0.1


@pytest.mark.parametrize("step", [0, 500, 999])
def test_the_variance_is_that_of_signal_and_noise(step):
    signal = 3.0 * torch.randn(400, 500, generator=torch.Generator().manual_seed(1))
    left = share_of_signal(step)
    assert noisy(signal, step, seed=0).var() == pytest.approx(9 * left + 1 - left, rel=0.02)
    assert noisy(signal.half(), step, 0).dtype == torch.float16


def test_the_noise_is_that_of_the_seed_and_of_a_shorter_signal():
    signal = torch.zeros(6, 5)
    assert torch.equal(noisy(signal, 500, 3), noisy(signal, 500, 3))
    assert not torch.equal(noisy(signal, 500, 3), noisy(signal, 500, 4))
    assert torch.equal(noisy(signal, 500, 3)[:4], noisy(signal[:4], 500, 3))


def test_each_picture_of_a_row_of_patches_has_the_same_noise():
    patches, grid = torch.zeros(4 + 6, 5), torch.tensor([[1, 2, 2], [1, 2, 3]])
    names = {"pixel_values": "image_grid_thw"}
    both = with_noise({"pixel_values": patches, "image_grid_thw": grid}, names=names, step=500, seed=2)["pixel_values"]
    assert torch.equal(both[:4], both[4:8])
    single = with_noise({"pixel_values": patches[4:], "image_grid_thw": grid[1:]}, names=names, step=500, seed=2)
    assert torch.equal(both[4:], single["pixel_values"])


def runnable(model, inputs, **settings):
    """Logits of the last token, with a method or without."""
    method = settings.pop("method", None)
    with torch.inference_mode():
        if method is None:
            return model(**inputs).logits[:, -1]
        with method(model):
            return model(**inputs).logits[:, -1]


@pytest.mark.parametrize("name", sorted({*SEES, *HEARS}))
def test_it_contrasts_with_the_pass_over_noisy_inputs(name):
    model = reader(tiny(name, "sdpa"))
    inputs = FAMILIES[name].multimodal_inputs(model)
    kinds = tuple(kind for kind, names in (("vision", SEES), ("audio", HEARS)) if name in names)
    method = VCD(alpha=1.5, beta=0.0, modalities=kinds)
    changed = with_noise(inputs, names=method._names(), step=500, seed=0)
    assert changed, f"{name} reads {sorted(inputs)}, of which nothing is known as what is seen or heard"
    z, y = runnable(model, inputs), runnable(model, {**inputs, **changed})
    assert not torch.equal(z, y)
    assert torch.allclose(runnable(model, inputs, method=method), 2.5 * z - 1.5 * y, atol=1e-5)
    assert torch.equal(runnable(model, inputs, method=VCD(0.0, 0.0, modalities=kinds)), z)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "qwen2_5_omni", "llava", "gemma3_vision"])
def test_generated_tokens_are_those_without_a_cache(name):
    model = reader(tiny(name, "sdpa"))
    inputs = FAMILIES[name].multimodal_inputs(model)
    # The tiny model would say placeholders of pictures, which without a cache would be read as such.
    options = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": list(range(1, 20))}
    changed = with_noise(inputs, names=VCD()._names(), step=500, seed=0)
    expected = 4 * runnable(model, inputs) - 3 * runnable(model, {**inputs, **changed})
    with VCD(alpha=3.0, beta=0.0)(model):
        kept = model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
        anew = model.generate(**inputs, **options, use_cache=False)
        beams = model.generate(**inputs, **options, num_beams=2, num_return_sequences=2)
        beams_anew = model.generate(**inputs, **options, num_beams=2, num_return_sequences=2, use_cache=False)
    # Which says that pictures which generate() encodes beforehand have their noise too.
    assert torch.allclose(kept.logits[0], expected, atol=1e-4)
    assert kept.sequences.tolist() == anew.tolist()
    assert beams.tolist() == beams_anew.tolist()


def test_a_prompt_without_pictures_is_contrasted_with_itself():
    model = reader(tiny("qwen2_5_vl", "sdpa"))
    inputs = FAMILIES["qwen2_5_vl"].inputs(model)
    with torch.inference_mode():
        bare = model(**inputs).logits[:, -1]
        with VCD(alpha=1.0, beta=0.0)(model):
            assert torch.allclose(model(**inputs).logits[:, -1], bare, atol=1e-5)


def test_a_model_that_reads_text_only_is_refused():
    with pytest.raises(UnsupportedModelError, match="reads text only"), VCD()(tiny_llama()):
        pass


@pytest.mark.parametrize("beta", [0.05, 0.5, 1.0])
def test_the_cut_keeps_tokens_of_a_share_of_the_best_probability(beta):
    model, ids = tiny_llama(), prompt(13, (0, 4))
    with torch.inference_mode():
        bare = model(ids).logits
        with PlausibleTokens(beta=beta)(model):
            cut = model(ids).logits
    chances = bare.double().softmax(dim=-1)
    kept = chances >= beta * chances.amax(dim=-1, keepdim=True) * (1 - 1e-6)
    assert torch.equal(cut.isfinite(), kept)
    assert torch.equal(cut[kept], bare[kept])
    assert torch.equal(cut.argmax(dim=-1), bare.argmax(dim=-1))


def test_settings_that_make_no_sense_are_refused():
    for given in (
        {"alpha": -1.0},
        {"beta": 1.5},
        {"noise_step": 1000},
        {"modalities": ()},
        {"modalities": ("smell",)},
    ):
        with pytest.raises(ValueError, match=next(iter(given))):
            VCD(**given)
    with pytest.raises(ValueError, match="alpha"):
        PlausibleTokens(alpha=1.0)
    with pytest.raises(OmnisinkError, match="noise_step"):
        parse_method("vcd:noise_step=-1")
    assert parse_method("vcd:sampler:audio-video") == VCD(0.5, modalities=("vision", "audio"))
