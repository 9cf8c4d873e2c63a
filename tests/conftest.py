"""What the whole suite shares."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test may reach for the network

if "PYTEST_XDIST_WORKER" in os.environ:  # and before torch: workers that each take all cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.made_once import made_once

with suppress(ImportError):  # The environment of lmms-eval has no hypothesis, and none of the tests that need it.
    from hypothesis import settings

    # How long an example takes says more of the machine than of the code.
    settings.register_profile("omnisink", deadline=None)
    settings.load_profile("omnisink")

#: A letter whose embedding is massive in the tiny checkpoint: a planted sink.
SINK_LETTER = "W"


@pytest.fixture(scope="session")
def smollm2():
    """Load the real SmolLM2-135M once, in float32 on the CPU."""
    from omnisink import load_model

    return load_model("smollm2-135m", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def smolomni():
    """Load the real SmolOmni once, in float32 on the CPU."""
    from omnisink import load_model

    return load_model("smolomni", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def flex_attention_uncompiled():
    """Run flex attention's eager form: compiled for the CPU it takes minutes, and single queries do not compile."""
    import torch

    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.fixture(autouse=True)
def compile_flex_attention_anew(request):
    """Forget what was compiled before a test with flex attention on a static cache.

    After other lengths of keys PyTorch compiles for any length, and its C++ for CPUs then uses a variable that it does
    not declare (torch 2.14).
    """
    chosen = getattr(request.node, "callspec", None)
    if chosen is not None and {"flex_attention", "static"} <= {
        v for v in chosen.params.values() if isinstance(v, str)
    }:
        import torch

        torch.compiler.reset()


@pytest.fixture(scope="session")
def tokenizer():
    """Make a tokenizer of single bytes, with a chat template that knows no system message."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>")
    made.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        "W{{ messages[0].content }}:"
    )
    return made


@pytest.fixture(scope="session")
def llama_folder(tokenizer, tmp_path_factory) -> Path:
    """Save a tiny Llama with a planted sink, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(SINK_LETTER), 5] = 4000.0

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return made_once(tmp_path_factory, "tiny-llama", save)


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Render a clip of four seconds with sound."""
    from omnisink.synthav.render import render
    from tests.synthav.scenes import scene_without_voice

    return made_once(tmp_path_factory, "clips", lambda folder: render(scene_without_voice(), folder / "clip.mp4")) / (
        "clip.mp4"
    )
