"""Qwen2.5-Omni's prompts and preprocessing are those of qwen-omni-utils and the real processor, on a real mp4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnisink import load_model
from omnisink.models.adapters import qwen2_5_omni
from omnisink.models.adapters.qwen2_5_omni import SYSTEM
from omnisink.models.adapters.qwen_frames import QwenFrames
from tests.models.tiny_checkpoints import qwen2_5_omni_parts, save
from tests.skips import needs

#: Bounds beyond those of the utilities, as the official checkpoints have: theirs then hold.
WIDE = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Any:
    """Load a tiny thinker whose processor leaves the size of frames to the utilities."""
    import transformers

    settings, processor = qwen2_5_omni_parts(WIDE)
    model = transformers.Qwen2_5OmniThinkerForConditionalGeneration(transformers.Qwen2_5OmniThinkerConfig(**settings))
    return load_model(save(tmp_path_factory.mktemp("official"), model, processor))


def theirs(loaded: Any, clip: Path, question: str) -> Any:
    """Make the inputs as the official example does."""
    from qwen_omni_utils import process_mm_info

    conversation = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "video", "video": str(clip)}, {"type": "text", "text": question}]},
    ]
    text = loaded.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    audios, images, videos = process_mm_info(conversation, use_audio_in_video=True)
    return loaded.processor(
        text=[text],
        audio=audios,
        images=images,
        videos=videos,
        return_tensors="pt",
        padding=True,
        load_audio_from_video=True,
        audio_from_video_indices=[0],
    )


@needs("ffmpeg")
@pytest.mark.filterwarnings("ignore")  # Of the libraries that are compared with.
def test_prompt_and_features_equal_the_utilities(official, clip):
    question = "What is on screen when the bell sounds?"
    ours, reference = official.inputs(question, video=clip), theirs(official, clip, question)
    assert torch.equal(ours["input_ids"], reference["input_ids"])
    assert torch.equal(ours["attention_mask"], reference["attention_mask"])
    assert torch.equal(ours["video_grid_thw"], reference["video_grid_thw"])
    assert torch.equal(ours["video_second_per_grid"], reference["video_second_per_grid"])
    # Another decoder's colour conversion rounds otherwise: a step of 8 bits is 0.015 here.
    gap = (ours["pixel_values_videos"] - reference["pixel_values_videos"]).abs()
    assert gap.mean() < 0.015
    assert gap.max() < 0.3
    (heard, sound), (expected, their_sound) = map(spectrogram, (ours, reference))
    assert heard == expected
    # Their sound comes through 16-bit samples of ffmpeg's program; log-mel features are clipped 8 below their maximum.
    assert (sound - their_sound).abs().mean() < 5e-3
    assert sound.std() > 0.2


def spectrogram(inputs: Any) -> tuple[list[int], torch.Tensor]:
    """Return how many frames each sound has, and the frames of all, (frames, bands), without padding."""
    mask = inputs["feature_attention_mask"].bool()
    return mask.sum(dim=1).tolist(), inputs["input_features"].transpose(1, 2)[mask]


def test_padding_no_further_than_the_sound_changes_no_frame_of_it(official, clip, monkeypatch):
    batch = {"question": ["What is heard?"] * 2, "video": [clip, clip], "audio": True}
    heard, sound = spectrogram(short := official.inputs(**batch))
    samples = official.processor.feature_extractor.n_samples
    monkeypatch.setattr(qwen2_5_omni, "_padded", lambda _: samples)
    expected, processors = spectrogram(long := official.inputs(**batch))
    assert heard == expected
    assert torch.equal(sound, processors)
    assert short["input_features"].shape[-1] == max(heard) + 2 < long["input_features"].shape[-1]


@pytest.mark.parametrize(("total", "rate"), [(32, 8.0), (9, 30.0), (4, 2.0), (301, 25.0), (50_000, 29.97), (2, 1.0)])
def test_frames_are_chosen_as_the_utilities_choose(total, rate):
    from qwen_omni_utils.v2_5.vision_process import smart_nframes

    count = smart_nframes({}, total_frames=total, video_fps=rate)
    expected = torch.linspace(0, total - 1, count).round().long().tolist()
    chosen = QwenFrames().select(np.arange(total) / rate)
    assert len(chosen) == len(expected)
    # Halves may be rounded to either side.
    assert np.abs(chosen - np.array(expected)).max() <= 1
    assert np.mean(chosen == np.array(expected)) > 0.97


@pytest.mark.parametrize("size", [(224, 224), (1080, 1920), (41, 67), (720, 1280), (500, 100), (2160, 3840)])
def test_frames_are_scaled_as_the_utilities_scale(size):
    from qwen_omni_utils.v2_5.vision_process import smart_resize

    from omnisink.models.adapters.qwen_frames import smart_size

    for least, most in ((128 * 784, 768 * 784), (112 * 112, 112 * 112), (4 * 784, 16384 * 784)):
        assert smart_size(*size, 28, least, most) == smart_resize(*size, 28, least, most)
