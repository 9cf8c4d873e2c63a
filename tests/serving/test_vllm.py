"""What of vLLM the plug-in stands on: where this changes, these tests say so before anything else does."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests.skips import needs

pytestmark = needs("vllm")


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version_is_the_one_tested() -> None:
    import vllm

    assert vllm.__version__.startswith("0.32.")


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("cpu_attn", "CPUAttentionBackendImpl"),
        ("flash_attn", "FlashAttentionImpl"),
        ("triton_attn", "TritonAttentionImpl"),
        ("flex_attention", "FlexAttentionImpl"),
    ],
)
def test_attention_is_called_as_it_is_wrapped(module: str, kind: str) -> None:
    import importlib

    found = getattr(importlib.import_module(f"vllm.v1.attention.backends.{module}"), kind)
    wanted = ["self", "layer", "query", "key", "value", "kv_cache", "attn_metadata", "output", "output_scale"]
    assert parameters(found.forward)[:9] == wanted


@pytest.mark.parametrize("module", ["cpu_attn", "flash_attn", "triton_attn", "flex_attention"])
def test_metadata_can_carry_what_there_is_to_do(module: str) -> None:
    import dataclasses
    import importlib

    from vllm.v1.attention.backend import AttentionMetadataBuilder

    found = importlib.import_module(f"vllm.v1.attention.backends.{module}")
    builders = [
        one
        for name, one in vars(found).items()
        if inspect.isclass(one) and issubclass(one, AttentionMetadataBuilder) and one.__module__ == found.__name__
    ]
    assert builders
    for builder in builders:
        assert parameters(builder.build)[:3] == ["self", "common_prefix_len", "common_attn_metadata"]
    metadata = [
        one
        for name, one in vars(found).items()
        if name.endswith("Metadata") and dataclasses.is_dataclass(one) and one.__module__ == found.__name__
    ]
    assert metadata
    for one in metadata:
        assert "__slots__" not in vars(one)


def test_the_first_runner_keeps_the_order_of_requests() -> None:
    from vllm.v1.worker.gpu_input_batch import InputBatch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert isinstance(inspect.getattr_static(InputBatch, "req_ids"), property)
    assert "self.input_batch" in inspect.getsource(GPUModelRunner.__init__)
    assert "scheduler_output" in parameters(GPUModelRunner.execute_model)


def test_the_second_runner_names_the_request_of_every_row() -> None:
    import pathlib

    import vllm

    # Its modules need Triton to be imported, so that their source is read.
    root = pathlib.Path(vllm.__file__).parent / "v1" / "worker" / "gpu"
    assert "req_idx=input_batch.idx_mapping_np" in (root / "model_states" / "default.py").read_text()
    assert "self.index_to_req_id: dict[int, str]" in (root / "states.py").read_text()
    assert "self.req_states = " in (root / "model_runner.py").read_text()
    assert "self.input_batch" not in (root / "model_runner.py").read_text()


def test_the_scheduler_says_what_starts_and_what_ends() -> None:
    from dataclasses import fields

    from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput

    read = {"scheduled_new_reqs", "scheduled_cached_reqs", "num_scheduled_tokens", "finished_req_ids"}
    read |= {"preempted_req_ids", "total_num_scheduled_tokens"}
    assert read <= {f.name for f in fields(SchedulerOutput)}
    assert {"req_ids", "resumed_req_ids", "num_computed_tokens"} <= {f.name for f in fields(CachedRequestData)}
    assert {"req_id", "num_computed_tokens", "sampling_params"} <= {f.name for f in fields(NewRequestData)}
    assert isinstance(NewRequestData.prompt_len, property)


def test_workers_load_and_run_as_they_are_wrapped() -> None:
    from vllm.v1.worker.gpu_worker import Worker

    assert parameters(Worker.execute_model) == ["self", "scheduler_output"]
    assert "self.model_runner" in inspect.getsource(Worker.load_model)


def test_requests_become_parameters_where_they_are_read() -> None:
    from vllm import SamplingParams
    from vllm.v1.engine.input_processor import InputProcessor

    from omnisink.serving.frontend import _REQUESTS

    assert parameters(InputProcessor.process_inputs)[:4] == ["self", "request_id", "prompt", "params"]
    assert SamplingParams(extra_args={"outro": {"gamma": 1}}).extra_args == {"outro": {"gamma": 1}}
    for module, name in _REQUESTS:
        kind = getattr(__import__(module, fromlist=[name]), name)
        assert hasattr(kind, "to_sampling_params")
        assert kind.model_config["extra"] == "allow"
