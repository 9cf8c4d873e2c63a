"""The adapter of docs/write-an-adapter.md, installed as a package, on a tiny LLaVA; every adapter has a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from omnisink import OmnisinkError, OutRo, load_model
from omnisink.models.adapters.registry import ADAPTERS
from omnisink.models.loaded import Loaded
from tests.models.adapters.page_examples import installed
from tests.models.tiny_checkpoints import BESIDE, CHECKPOINTS, HEARING
from tests.models.tiny_parts import TEXT, save, template, token_ids, tokenizer


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the page's first example."""
    with installed(0, "llava_adapter", tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny LLaVA 1.5 with its real processor."""
    made = tokenizer({"image_token": "<image>"})
    size = {"height": 28, "width": 28}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=size),
        tokenizer=made,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("", "<image>"),
    )
    config = transformers.LlavaConfig(
        text_config={**TEXT, "vocab_size": len(made), "pad_token_id": 0, "model_type": "llama"},
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        **token_ids(made, image_token_index="<image>"),
    )
    return save(tmp_path_factory.mktemp("llava"), transformers.LlavaForConditionalGeneration(config), processor)


@pytest.fixture(scope="module")
def loaded(package: None, checkpoint: Path) -> Loaded:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Save a dark picture and a noisy one."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    for name, pixels in (("dark", np.zeros_like(noise)), ("noise", noise)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return [folder / "dark.png", folder / "noise.png"]


def test_the_family_is_unknown_without_the_package(checkpoint: Path, photos: list[Path]) -> None:
    with pytest.raises(OmnisinkError, match="of the type llava, for which there is no adapter"):
        load_model(checkpoint).inputs("What is this?", image=photos[0])


def test_the_example_asks_about_a_picture(loaded: Loaded, photos: list[Path]) -> None:
    assert type(loaded.adapter).__name__ == "Llava"
    inputs = loaded.inputs("What is this?", image=photos[1])
    assert inputs.facts[0].image_tokens == 4
    spans = loaded.spans(inputs)[0]
    assert [p for s in spans for p in range(s.start, s.stop)] == list(range(inputs["input_ids"].shape[1]))
    assert [s.stop - s.start for s in spans if s.modality == "image"] == [4]
    answer = loaded.ask("What is this?", image=photos[1], max_new_tokens=3, method=OutRo(gamma=0.5))
    assert answer.facts.image_tokens == 4
    with pytest.raises(OmnisinkError, match="the family takes no video"):
        loaded.inputs("What is this?", video=photos[0].with_suffix(".mp4"))


def test_the_picture_reaches_the_model_in_a_padded_batch_too(loaded: Loaded, photos: list[Path]) -> None:
    questions = ["What is this?", "Is it dark, or is it bright?"]
    with torch.inference_mode():
        batch = loaded.model(**loaded.inputs(questions, image=photos[0])).logits[:, -1]
        for row, question in enumerate(questions):
            one = loaded.model(**loaded.inputs(question, image=photos[0])).logits[0, -1]
            torch.testing.assert_close(batch[row], one, atol=2e-5, rtol=1e-4)
        other = loaded.model(**loaded.inputs(questions[1], image=photos[1])).logits[0, -1]
    assert (other - one).abs().max() > 1e-4


def test_every_adapter_is_tested_on_a_checkpoint_of_its_own(families: Callable[[str], Loaded]) -> None:
    tested = {type(families(name).adapter) for name in (*CHECKPOINTS, *BESIDE)}
    assert [adapter.__name__ for adapter in ADAPTERS if adapter not in tested] == []
    assert {name for name in CHECKPOINTS if "audio" in families(name).adapter.modalities} == set(HEARING)
    types = [model_type for adapter in ADAPTERS for model_type in adapter.model_types]
    assert len(types) == len(set(types))
