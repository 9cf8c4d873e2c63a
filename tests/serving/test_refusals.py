"""What a server with OutRo cannot be started with, what is switched off, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from omnisink.errors import OmnisinkError, UnsupportedModelError
from tests.serving.planted import GAMMA
from tests.skips import needs

pytestmark = needs("vllm")


def configured(folder: Path, outro: Any = None, **options: Any) -> Any:
    from vllm import EngineArgs

    outro = {"gamma": GAMMA} if outro is None else outro
    given = {"dtype": "float32", "skip_tokenizer_init": True, "additional_config": {"outro": outro}, **options}
    return EngineArgs(model=str(folder), **given).create_engine_config()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what OutRo logs."""
    from omnisink.serving import startup

    lines: list[str] = []
    recorder = SimpleNamespace(info=lambda words, *values: lines.append(words % values))
    monkeypatch.setattr(startup, "logger", recorder)
    return lines


def test_what_splits_or_shares_a_prompt_is_switched_off_and_said(llama_served: Path, said: Any) -> None:
    config = configured(llama_served, max_model_len=512, max_num_batched_tokens=128, max_num_seqs=8)
    assert not config.cache_config.enable_prefix_caching
    assert not config.scheduler_config.enable_chunked_prefill
    assert config.scheduler_config.max_num_batched_tokens == 512
    assert config.scheduler_config.max_num_encoder_input_tokens >= 512
    assert config.parallel_config.worker_cls == "omnisink.serving.worker.CPUWorker"
    text = "\n".join(said)
    for words in (
        "prefix caching is switched off",
        "chunked prefill is switched off",
        "raised from 128 to max_model_len, 512",
        "OutRo is on for",
        "(Llama): ServingSettings(gamma=1.5",
    ):
        assert words in text


@pytest.mark.parametrize("off", [False, None])
def test_switched_off_nothing_is_touched(llama_served: Path, said: Any, off: Any) -> None:
    from vllm import EngineArgs

    args = {"model": str(llama_served), "dtype": "float32", "skip_tokenizer_init": True}
    bare = EngineArgs(**args).create_engine_config()
    config = EngineArgs(**args, additional_config={} if off is None else {"outro": off}).create_engine_config()
    for part in ("cache_config", "scheduler_config", "parallel_config"):
        assert getattr(config, part) == getattr(bare, part)
    assert config.cache_config.enable_prefix_caching
    assert said == []


def speculative(folder: Path) -> dict[str, Any]:
    return {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (speculative, "with speculative decoding"),
        (
            lambda folder: {"kv_transfer_config": {
                "kv_connector": "ExampleConnector", "kv_role": "kv_both",
                "kv_connector_extra_config": {"shared_storage_path": str(folder / "kv")},
            }},
            "with KV transfer",
        ),
        (lambda folder: {"pipeline_parallel_size": 2}, "with pipeline parallelism"),
        (lambda folder: {"data_parallel_size": 2}, "with data parallelism inside one server"),
        (lambda folder: {"kv_cache_dtype": "fp8"}, "with a KV cache of fp8"),
    ],
)  # fmt: skip
def test_what_would_make_it_wrong_is_refused(llama_served: Path, options: Any, why: str) -> None:
    with pytest.raises(OmnisinkError, match=f"OutRo cannot be served {why}"):
        configured(llama_served, **options(llama_served.parent))


@pytest.mark.parametrize(
    ("outro", "why"),
    [
        ({"gama": 1}, "additional_config: outro has no setting 'gama'"),
        ({"tau": 0}, "tau must be a positive number"),
        ("on", "outro must be an object with settings"),
        ({"relax_layers": [6]}, r"relax_layers names \[6\], but the model has layers 0 to 5"),
    ],
)
def test_wrong_settings_are_refused(llama_served: Path, outro: Any, why: str) -> None:
    with pytest.raises((OmnisinkError, ValueError), match=why):
        configured(llama_served, outro)


def test_a_model_of_another_family_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    with pytest.raises(
        UnsupportedModelError, match="not known to be right on Gemma2ForCausalLM in vLLM; .*LlamaForCausalLM"
    ):
        configured(tmp_path / "gemma")


def test_the_entry_point_may_be_called_again(llama_served: Path) -> None:
    from vllm.config import VllmConfig

    from omnisink.serving.plugin import register

    before = VllmConfig.__post_init__
    register()
    register()
    assert VllmConfig.__post_init__ is before or before.__name__ == "__post_init__"
    assert VllmConfig.__post_init__.knows_outro  # type: ignore[attr-defined]


def test_every_family_named_is_one_of_vllms() -> None:
    from vllm import ModelRegistry

    from omnisink.serving.families import BACKENDS, FAMILIES

    assert FAMILIES.keys() <= set(ModelRegistry.get_supported_archs())
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    assert set(BACKENDS) <= {one.name for one in AttentionBackendEnum}


def test_beam_search_offline_is_refused(llama_served: Path) -> None:
    from vllm import LLM

    config = configured(llama_served)
    llm = LLM.__new__(LLM)
    llm.llm_engine = SimpleNamespace(vllm_config=config)  # type: ignore[assignment]
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError, match="beam search runs every step as a new prompt"):
        llm.beam_search([], None)  # type: ignore[arg-type]
