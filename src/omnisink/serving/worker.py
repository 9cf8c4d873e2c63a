"""vLLM's workers with OutRo on their models. vLLM finds them by the name that the configuration holds."""

from __future__ import annotations

from typing import Any

from vllm.distributed import get_tensor_model_parallel_rank
from vllm.utils.import_utils import resolve_obj_by_qualname

from omnisink.errors import OmnisinkError
from omnisink.serving.attach import ServedModel
from omnisink.serving.configuration import settings_of
from omnisink.serving.scheduler import cleared
from omnisink.serving.startup import WORKERS


class _Serving:
    """Mixed into the class of a worker."""

    served: ServedModel | None = None
    vllm_config: Any
    model_runner: Any

    def load_model(self, *args: Any, **named: Any) -> None:
        super().load_model(*args, **named)  # type: ignore[misc]
        settings = settings_of(self.vllm_config)
        if settings is None:
            raise OmnisinkError("this worker is for a server with OutRo, and its configuration has no settings of it")
        publish = get_tensor_model_parallel_rank() == 0
        self.served = ServedModel(self.model_runner, self.vllm_config, settings, publish)

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        super().initialize_from_config(cleared(kv_cache_config))  # type: ignore[misc]

    def execute_model(self, scheduler_output: Any) -> Any:
        if self.served is None:
            raise OmnisinkError("the model was not loaded by this worker's load_model, so OutRo is not on it")
        self.served.begin(scheduler_output)
        try:
            return super().execute_model(scheduler_output)  # type: ignore[misc]
        finally:
            self.served.end()

    def outro_state(self) -> dict[str, int]:
        """Sequences alive, slots taken and totals; for tests, by `collective_rpc`."""
        if self.served is None:
            return {}
        sequences = self.served.sequences
        return {"alive": sequences.count, "slots": sequences.slots_taken, **self.served.counters.totals}


def __getattr__(name: str) -> type:
    """Make the worker of a platform when it is asked for: those of other platforms cannot be imported."""
    for theirs, ours in WORKERS.items():
        if ours == f"{__name__}.{name}":
            made = type(name, (_Serving, resolve_obj_by_qualname(theirs)), {"__module__": __name__})
            globals()[name] = made
            return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
