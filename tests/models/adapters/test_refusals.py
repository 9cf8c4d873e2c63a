"""What no family is asked, each in one line, and pictures of odd shapes that every family sees."""

from __future__ import annotations

import wave

import numpy as np
import pytest
import torch
from PIL import Image

from omnisink import MediaError, OmnisinkError
from omnisink.models.adapters.refusals import media_tokens
from tests.models.tiny_checkpoints import CHECKPOINTS, PICTURES


@pytest.fixture(params=list(CHECKPOINTS))
def loaded(request, families):
    return families(request.param)


def test_a_quoted_placeholder_is_refused_by_name_wherever_it_stands(loaded, clip):
    tokens = media_tokens(loaded)
    assert len(tokens) >= 2
    held = {loaded.tokenizer.convert_ids_to_tokens(i) for i in placeholder_ids(loaded)}
    assert held <= tokens
    for token in tokens:
        for asked in (
            {"question": f"What does {token} stand for?"},
            {"question": f"What does {token} stand for?", "video": clip, "audio": False},
            {"question": "Which?", "choices": ["bell", token]},
            {"question": ["Why?", token]},
            {"question": "Why?", "system": f"Never say {token}."},
        ):
            with pytest.raises(OmnisinkError, match="holds") as error:
                loaded.inputs(**asked)
            assert token in str(error.value)
            assert "\n" not in str(error.value)


def placeholder_ids(loaded):
    from omnisink.questions.prompt import Prompt

    return loaded.adapter.placeholders(loaded, Prompt("x"))


def test_other_special_tokens_and_half_placeholders_are_text(loaded):
    assert loaded.inputs("What is <|nothing|>, <imag> or < image >?").facts[0].prompt_tokens > 10


@pytest.mark.parametrize("loaded", PICTURES, indirect=True)
@pytest.mark.parametrize("size", [(10, 3000), (3000, 10)])
def test_a_picture_of_over_200_to_1_is_one_line(loaded, tmp_path, size):
    path = tmp_path / "long.png"
    Image.new("RGB", size, "white").save(path)
    with pytest.raises(MediaError, match=f"long.png: a picture of {size[0]} x {size[1]} pixels is too long") as error:
        loaded.inputs("What is shown?", image=path)
    assert "\n" not in str(error.value)
    assert loaded.adapter.modalities >= {"image"}


#: Sides of 1, 3 and 4 pixels look like channels; every mode once, as all are converted before a family sees them.
SIZES = [(100, 1), (100, 2), (100, 3), (100, 4), (1, 100), (3, 100), (4, 100), (3, 3), (4, 1)]
THIN = [*((size, "RGB") for size in SIZES), *(((100, 3), mode) for mode in ("RGBA", "P", "L", "LA", "1"))]


@pytest.mark.parametrize("loaded", PICTURES, indirect=True)
@pytest.mark.parametrize(("size", "mode"), THIN)
def test_thin_pictures_keep_their_colour(loaded, tmp_path, size, mode):
    """Every family's features of a thin picture are those of its pixels, colours last, whatever its shape."""
    path = tmp_path / "thin.png"
    red = Image.new("RGB", size, (255, 0, 0))
    red.convert(mode).save(path)
    if loaded.model.config.model_type == "phi4_multimodal" and max(size) > 44 * min(size):
        # One crop of 448 pixels leaves less than 10 for the short side, which its processor does not take.
        with pytest.raises(MediaError, match=r"thin.png: the processor of .* refuses it: the aspect ratio is very"):
            loaded.inputs("What colour?", image=path)
        return
    inputs = loaded.inputs("What colour?", image=path)
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB"))[0, 0]
    name = next(n for n in ("pixel_values", "image_pixel_values") if n in inputs)
    pixels = inputs[name].float()
    ip = getattr(loaded.processor, "image_processor", loaded.processor)  # A port may have that of pictures only.
    mean, std = (torch.tensor(getattr(ip, n)) for n in ("image_mean", "image_std"))
    seen = channels(pixels, loaded) * std[:, None] + mean[:, None]
    # Families pad with black or with the mean, so the picture's own colour is looked for among all.
    assert nearest(seen, torch.tensor(expected) / 255) < 0.06


def channels(pixels, loaded):
    """Return all pixels as (3, N), whether the family keeps patches or whole pictures."""
    if pixels.dim() == 2:  # Patches: colour, then time and place.
        return pixels.reshape(len(pixels), 3, -1).transpose(0, 1).reshape(3, -1)
    return pixels.reshape(-1, 3, *pixels.shape[-2:]).transpose(0, 1).reshape(3, -1)


def nearest(seen, colour):
    return float((seen - colour[:, None]).abs().amax(dim=0).min())


@pytest.mark.parametrize("samples", [1, 10, 100])
@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen3_omni", "phi4_multimodal"])
def test_a_sound_of_a_few_samples_is_too_short_or_heard(families, tmp_path, family, samples):
    loaded, path = families(family), tmp_path / "short.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, samples, "NONE", ""))
        file.writeframes(bytes(2 * samples))
    if loaded.adapter.audio_tokens(samples) < 1:
        with pytest.raises(MediaError, match=f"short.wav: its sound is too short: {samples} samples, 0.0"):
            loaded.inputs("What is heard?", audio=path)
    else:
        assert loaded.inputs("What is heard?", audio=path).facts[0].audio_tokens > 0
