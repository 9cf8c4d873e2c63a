"""What a server with OutRo is started with: refused, switched off with a line in the log, or left as it is.

Keys and values of a prompt depend on later tokens of it, through relaxation and through the rotation toward the sink's
value. Whatever splits a prompt, or lets two requests share a part of one, would give another result than the method.
"""

from __future__ import annotations

from typing import Any

from vllm.logger import init_logger

from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.serving.configuration import settings_of
from omnisink.serving.families import FAMILIES
from omnisink.serving.scheduler import SCHEDULERS, count_nans

# Under vLLM's own logger, whose configuration it takes.
logger = init_logger("vllm.omnisink")

#: vLLM's workers that ours can stand in for, by the name of the class; see `omnisink.serving.worker`.
WORKERS = {
    "vllm.v1.worker.cpu_worker.CPUWorker": "omnisink.serving.worker.CPUWorker",
    "vllm.v1.worker.gpu_worker.Worker": "omnisink.serving.worker.Worker",
}


def prepare(config: Any) -> None:
    """Check a configuration and switch off what cannot be, before vLLM derives anything from it.

    Parameters
    ----------
    config : VllmConfig
        As it was given.

    Raises
    ------
    OmnisinkError
        If the settings are wrong, or something asked for cannot be together with the method.
    UnsupportedModelError
        If the model is of no family that is known.
    """
    if config.model_config is None or config.model_config.is_submodel_config:
        return
    settings = settings_of(config)
    if settings is None:
        return
    _check_model(config.model_config)
    settings.check_depth(config.model_config.hf_text_config.num_hidden_layers)
    for why in _refusals(config):
        raise OmnisinkError(f"OutRo cannot be served {why}")
    _switch_off(config)


def finish(config: Any) -> None:
    """Check again what vLLM may have changed, and name our workers. Called after vLLM's own checks; may be repeated.

    Parameters
    ----------
    config : VllmConfig
        As vLLM has completed it.

    Raises
    ------
    OmnisinkError
        If something that had been switched off is on again, or the platform's worker is unknown.
    """
    model = config.model_config
    if model is None or model.is_submodel_config:
        return
    for why in _refusals(config):
        raise OmnisinkError(f"OutRo cannot be served {why}")
    if config.scheduler_config.enable_chunked_prefill or config.cache_config.enable_prefix_caching:
        raise OmnisinkError("OutRo cannot be served: vLLM has switched chunked prefill or prefix caching on again")
    worker = config.parallel_config.worker_cls
    if worker not in WORKERS.values():
        if worker not in WORKERS:
            raise OmnisinkError(f"OutRo cannot be served by the worker {worker}; those known: {', '.join(WORKERS)}")
        config.parallel_config.worker_cls = WORKERS[worker]
        _guard(config.scheduler_config)
        logger.info("OutRo is on for %s (%s): %s", model.model, _family(model), settings_of(config))
        # Only where a configuration is made for the first time: workers check copies of it, and answer no requests.
        from omnisink.serving.frontend import install

        install(config)
    _cut_graphs(config)


def _guard(scheduler: Any) -> None:
    """Name our scheduler, which ends a sequence whose states are not finite, and have them looked for."""
    chosen = scheduler.get_scheduler_cls()
    named = f"{chosen.__module__}.{chosen.__qualname__}"
    if named not in SCHEDULERS:
        raise OmnisinkError(f"OutRo cannot be served by the scheduler {named}; those known: {', '.join(SCHEDULERS)}")
    scheduler.scheduler_cls = SCHEDULERS[named]
    count_nans()


def _architecture(model: Any) -> str:
    return next(iter(model.architectures or ()), type(model.hf_config).__name__)


def _family(model: Any) -> str:
    return FAMILIES[_architecture(model)]


def _check_model(model: Any) -> None:
    if _architecture(model) not in FAMILIES:
        raise UnsupportedModelError(
            f"OutRo is not known to be right on {_architecture(model)} in vLLM; architectures it is: "
            f"{', '.join(FAMILIES)}"
        )
    if model.runner_type != "generate":
        raise OmnisinkError(f"OutRo cannot be served for the task {model.runner_type}: it is for generating text")


def _refusals(config: Any) -> list[str]:
    """Give the reasons why a configuration cannot be, the most important first."""
    parallel, cache, passes = config.parallel_config, config.cache_config, config.compilation_config.pass_config
    found = []
    if config.speculative_config is not None:
        found.append("with speculative decoding: rejected draft tokens would have been rotated and counted")
    if config.kv_transfer_config is not None:
        found.append("with KV transfer: a prompt prefilled elsewhere brings no sink value with it")
    if config.ec_transfer_config is not None:
        found.append("with encoder transfer: a prompt whose media arrive late would be split")
    if parallel.pipeline_parallel_size > 1:
        found.append("with pipeline parallelism: later stages would not know which tokens were sinks in earlier ones")
    if parallel.data_parallel_size > 1:
        found.append("with data parallelism inside one server: start one server for each replica instead")
    if parallel._api_process_count > 1:
        found.append("with several API processes (api_server_count): requests and numbers are read in one")
    if parallel.prefill_context_parallel_size > 1 or parallel.decode_context_parallel_size > 1:
        found.append("with context parallelism: no rank would see a whole prompt")
    if parallel.use_ubatching:
        found.append("with micro-batches (enable_dbo, ubatch_size): their layout is not known to it")
    if getattr(passes, "enable_sp", False):
        found.append("with sequence parallelism (pass_config.enable_sp): no rank would see a whole residual stream")
    if cache.cache_dtype not in ("auto", "float32", "bfloat16", "float16"):
        found.append(f"with a KV cache of {cache.cache_dtype}: the sink's value would be rounded differently")
    if getattr(cache, "kv_sharing_fast_prefill", False):
        found.append("with kv_sharing_fast_prefill: later layers would not see the whole prompt")
    return found


def _switch_off(config: Any) -> None:
    """Switch off what splits or shares prompts, and say so."""
    cache, scheduler, length = config.cache_config, config.scheduler_config, config.model_config.max_model_len
    if cache.enable_prefix_caching:
        logger.info("OutRo: prefix caching is switched off: cached keys belong to the prompt they were computed in.")
        cache.enable_prefix_caching = False
    if scheduler.enable_chunked_prefill:
        logger.info("OutRo: chunked prefill is switched off: every prompt is prefilled whole, in one step.")
        scheduler.enable_chunked_prefill = False
    scheduler.long_prefill_token_threshold = 0
    if scheduler.max_num_batched_tokens < length:
        logger.info(
            "OutRo: max_num_batched_tokens is raised from %d to max_model_len, %d, so that every prompt fits in one "
            "step. A smaller max_model_len saves memory; longer prompts are refused.",
            scheduler.max_num_batched_tokens,
            length,
        )
        scheduler.max_num_batched_tokens = length
    if scheduler.max_num_scheduled_tokens is not None and scheduler.max_num_scheduled_tokens < length:
        scheduler.max_num_scheduled_tokens = None
    # Media of a prompt are encoded in the step of its prefill, so there has to be room for them, and beside them for
    # those of the steps before, which are let go of only when a step has come back.
    budget = max(scheduler.max_num_batched_tokens, scheduler.max_num_encoder_input_tokens)
    scheduler.max_num_encoder_input_tokens = budget
    scheduler.encoder_cache_size = max(scheduler.encoder_cache_size, 4 * budget)
    passes = config.compilation_config.pass_config
    if getattr(passes, "fuse_attn_quant", False):
        logger.info("OutRo: fuse_attn_quant is switched off: head outputs are changed before they are quantized.")
        passes.fuse_attn_quant = False


def _cut_graphs(config: Any) -> None:
    """Have graphs cut at our operator, which looks at which requests there are, as they are cut at attention."""
    operators = config.compilation_config.splitting_ops
    if operators and "omnisink::observe" not in operators:
        operators.append("omnisink::observe")
