"""In which order a pass holds its requests: the one thing that has to be asked of vLLM's model runner.

vLLM has two runners. The first is the one of CPUs; the second is used on GPUs for many models.
"""

from __future__ import annotations

from typing import Any

from omnisink.errors import OmnisinkError


def names_in_order(runner: Any, common: Any) -> list[str]:
    """Return the ids of the requests of a pass, as they lie in it.

    Parameters
    ----------
    runner : GPUModelRunner
        vLLM's, of either kind.
    common : CommonAttentionMetadata
        The runner's argument for the builders of attention metadata.

    Returns
    -------
    list of str
        Without padding.

    Raises
    ------
    OmnisinkError
        If the runner is of no known kind.
    """
    if hasattr(runner, "input_batch"):
        return _first(runner)
    if hasattr(runner, "req_states"):
        return _second(runner, common)
    raise OmnisinkError(f"OutRo does not know vLLM's model runner {type(runner).__name__}")


def _first(runner: Any) -> list[str]:
    """Order in `vllm.v1.worker.gpu_model_runner`: that of the persistent batch."""
    names: list[str] = runner.input_batch.req_ids
    return names


def _second(runner: Any, common: Any) -> list[str]:
    """Order in `vllm.v1.worker.gpu.model_runner`: every row names its place in the table of requests."""
    if common.req_idx is None:
        raise OmnisinkError("vLLM's model runner does not say which request a row belongs to")
    table = runner.req_states.index_to_req_id
    return [table[int(index)] for index in common.req_idx]
