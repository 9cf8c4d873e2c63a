"""vLLM with and without OutRo, offline, as the tests start and stop it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.serving.planted import Answer, served


@contextmanager
def engine(folder: Path, outro: Any = None, **options: Any) -> Iterator[Any]:
    """Start an engine on a checkpoint, float32 and eager unless told otherwise, and stop it."""
    from vllm import LLM

    llm = LLM(
        str(folder),
        **{
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 256,
            "max_num_seqs": 16,
            "skip_tokenizer_init": True,
            "kv_cache_memory_bytes": 1 << 28,
            "additional_config": {} if outro is None else {"outro": outro},
            "seed": 0,
            **options,
        },
    )
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


def greedy(count: int, outro: Any = None, **options: Any) -> Any:
    """Make parameters of a greedy answer of so many tokens."""
    from vllm import SamplingParams

    extra = {} if outro is None else {"extra_args": {"outro": outro}}
    return SamplingParams(
        **{"temperature": 0, "max_tokens": count, "logprobs": 0, "ignore_eos": True, "detokenize": False, **extra},
        **options,
    )


def ask(llm: Any, prompts: list[list[int]], params: Any) -> list[Answer]:
    """Answer prompts in one continuous batch."""
    made = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    return [served(one.outputs[0]) for one in made]


def state(llm: Any) -> dict[str, int]:
    """What the first worker holds and has counted."""
    return llm.collective_rpc("outro_state")[0]
