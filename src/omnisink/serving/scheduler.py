"""vLLM's schedulers, made so that a sequence whose states are not finite ends with an error and harms no other.

One sequence whose states overflow, whatever made them, would leave NaN in the blocks of the cache that it held.
Kernels multiply what a block holds beyond a sequence's end by an attention of zero, and zero times NaN is NaN: whoever
gets the block next would answer nothing, and so on from request to request. So a block is cleared before it is given
out, by vLLM's own mechanism, which it keeps for models whose blocks are read before they are full; and a sequence
whose logits hold a NaN gets no token of them, but ends with the finish reason "error".
"""

from __future__ import annotations

import copy
import os
from typing import Any

from vllm.logger import init_logger
from vllm.utils.import_utils import resolve_obj_by_qualname

logger = init_logger("vllm.omnisink")

#: vLLM's schedulers that ours can stand in for, by the name of the class; see `omnisink.serving.scheduler`.
SCHEDULERS = {
    "vllm.v1.core.sched.async_scheduler.AsyncScheduler": "omnisink.serving.scheduler.AsyncScheduler",
    "vllm.v1.core.sched.scheduler.Scheduler": "omnisink.serving.scheduler.Scheduler",
}
#: A variable of vLLM's: count the NaN in the logits of every sequence of a step.
COUNT_NANS = "VLLM_COMPUTE_NANS_IN_LOGITS"


def count_nans() -> None:
    """Have the engine and the workers that this process starts count the NaN in logits."""
    os.environ[COUNT_NANS] = "1"


def cleared(cache: Any) -> Any:
    """Return a `KVCacheConfig` like another, whose blocks are cleared before they are given out."""
    made = copy.copy(cache)
    made.__class__ = type("ClearedKVCacheConfig", (type(cache),), {"needs_kv_cache_zeroing": True})
    return made


def spoiled(output: Any) -> list[str]:
    """Return the ids of the requests of a step whose logits are not numbers, and take their tokens away.

    Parameters
    ----------
    output : ModelRunnerOutput
        Output of the workers; everything that could be sent to clients of these requests is removed.

    Returns
    -------
    list of str
        Ids.
    """
    found = [name for name, nans in (output.num_nans_in_logits or {}).items() if nans]
    for name in found:
        if output.sampled_token_ids:
            output.sampled_token_ids[output.req_id_to_index[name]] = []
        output.prompt_logprobs_dict.pop(name, None)
        output.prompt_token_id_logprobs_dict.pop(name, None)
    return found


class _Guarding:
    """Mixed into the class of a scheduler."""

    encoder_cache_mismatch_reqs: set[str]

    def __init__(self, vllm_config: Any, kv_cache_config: Any, *args: Any, **named: Any) -> None:
        super().__init__(vllm_config, cleared(kv_cache_config), *args, **named)  # type: ignore[call-arg]

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        for name in spoiled(model_runner_output):
            logger.warning("OutRo: the states of request %s are not finite: it ends with an error.", name)
            # Those that vLLM found to be broken meanwhile; it ends them with an error when it has gone over the step.
            self.encoder_cache_mismatch_reqs.add(name)
        return super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]


def __getattr__(name: str) -> type:
    """Make the scheduler that is asked for."""
    for theirs, ours in SCHEDULERS.items():
        if ours == f"{__name__}.{name}":
            made = type(name, (_Guarding, resolve_obj_by_qualname(theirs)), {"__module__": __name__})
            globals()[name] = made
            return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
