"""Put OutRo on a model that vLLM has loaded: on its text decoder, and only there."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.maths.choice import kernels_run_on
from omnisink.serving.attention import attending, backend_with
from omnisink.serving.counters import Counters
from omnisink.serving.families import BACKENDS
from omnisink.serving.layer import OutRoLayer
from omnisink.serving.request_order import names_in_order
from omnisink.serving.residual_hook import PrefillFlag, attach_hook
from omnisink.serving.sequences import Sequences, Step
from omnisink.serving.settings import ServingSettings

#: A variable of the environment; "0" keeps to PyTorch's operators where those compiled by Numba would be taken.
NUMBA = "OMNISINK_SERVING_NUMBA"


class ServedModel:
    """OutRo on one worker's model.

    Parameters
    ----------
    runner : GPUModelRunner
        vLLM's, with its model loaded.
    config : VllmConfig
        The configuration.
    settings : ServingSettings
        The method's.
    publish : bool
        Whether this worker writes the counters down.

    Attributes
    ----------
    sequences : Sequences
        Those alive.
    counters : Tally
        The counters.

    Raises
    ------
    UnsupportedModelError
        If the model's layers are not of the kind that is known, or the backend is not.
    """

    def __init__(self, runner: Any, config: Any, settings: ServingSettings, publish: bool) -> None:
        from vllm.logger import init_logger

        decoder = find_layers(runner.get_model(), config)
        device = next(iter(decoder[0].input_layernorm.parameters())).device
        capacity = config.scheduler_config.max_num_seqs
        most = config.scheduler_config.max_num_batched_tokens
        self.sequences = Sequences(settings, capacity, most, device, len(decoder))
        self.counters = Counters(capacity, device, publish)
        self._runner = runner
        self._running = False
        self._prefills = PrefillFlag()
        first = decoder[0].self_attn.attn
        kind_of_layer = _kind_of_layer(device, config.model_config.dtype)
        self._directions = torch.zeros(len(decoder), capacity + 1, first.num_kv_heads, first.head_size, device=device)
        backends: dict[type, type] = {}
        for number, layer in enumerate(decoder):
            attention = layer.self_attn.attn
            _check_attention(attention, number, config)
            kind = attention.attn_backend
            if kind not in backends:
                backends[kind] = backend_with(kind, self._plan)
            attention.attn_backend = backends[kind]
            attention.impl.__class__ = attending(attention.impl.__class__)
            attention.impl.outro = kind_of_layer(
                number,
                len(decoder),
                float(attention.impl.scale),
                self._directions[number],
                self.sequences,
                self.counters,
            )
            attach_hook(layer.input_layernorm, attention.layer_name, self._prefills)
        if len(backends) > 1:
            raise UnsupportedModelError(f"the layers use several attention backends: {', '.join(map(str, backends))}")
        init_logger("vllm.omnisink").info(
            "OutRo is on %d layers of %s, after %s.",
            len(decoder),
            type(runner.get_model()).__name__,
            next(iter(backends)).get_name(),  # type: ignore[attr-defined]
        )

    def begin(self, output: Any) -> None:
        """Take over what the scheduler has decided for the pass that begins (a `SchedulerOutput`)."""
        for slot in self.sequences.schedule(output):
            self._directions[:, slot] = 0
        self._running = output.total_num_scheduled_tokens > 0
        for one in self.sequences.starting:
            self.counters.begin(one.slot, one.first, self.sequences.null_slot)

    def end(self) -> None:
        """Close the pass, and write down what was counted."""
        if self._running:
            self._running = False
            for one in self.sequences.starting:
                self.counters.prompt_ran(one)
            self.counters.publish()

    def _plan(self, common: Any) -> Step:
        """Tell the layers what to do in a pass; called by the builder of attention metadata."""
        if not self._running:
            return self.sequences.idle_step()  # vLLM warms up, or captures a graph.
        names = names_in_order(self._runner, common)
        step = self.sequences.lay_out(names, common.query_start_loc_cpu[: len(names) + 1].tolist())
        self._prefills.running = bool(step.prefills)
        if step.slots is not None:
            self.counters.continued(step.slots, self.sequences.gammas, step.key)
        return step


def _kind_of_layer(device: torch.device, dtype: torch.dtype) -> type[OutRoLayer]:
    """Return the class of a layer; Numba and the kernels are loaded where they are used."""
    if kernels_run_on(torch.empty(0, dtype=dtype, device=device)):
        from omnisink.serving.packed_layer import PackedLayer

        return PackedLayer
    if device.type != "cpu" or dtype != torch.float32 or os.environ.get(NUMBA) == "0":
        return OutRoLayer
    from omnisink.serving.host_layer import HostLayer

    return HostLayer


def find_layers(model: nn.Module, config: Any) -> list[Any]:
    """Return the decoder layers of a model's text decoder, in order.

    Parameters
    ----------
    model : nn.Module
        vLLM's model.
    config : VllmConfig
        Its configuration.

    Returns
    -------
    list of nn.Module
        Modules with `self_attn.attn` and `input_layernorm`.

    Raises
    ------
    UnsupportedModelError
        If there are not as many as the configuration says.
    """
    from vllm.model_executor.layers.attention import Attention

    found = [
        module
        for module in model.modules()
        if isinstance(getattr(getattr(module, "self_attn", None), "attn", None), Attention)
        and hasattr(module, "input_layernorm")
    ]
    wanted = config.model_config.hf_text_config.num_hidden_layers
    if len(found) != wanted:
        raise UnsupportedModelError(
            f"{type(model).__name__} has {len(found)} decoder layers of the known kind, and should have {wanted}"
        )
    return found


def _check_attention(attention: Any, number: int, config: Any) -> None:
    """Refuse attention after which the method would be wrong."""
    backend = attention.attn_backend.get_name()
    if backend not in BACKENDS:
        raise OmnisinkError(
            f"OutRo is not written for vLLM's attention backend {backend}; those: {', '.join(BACKENDS)}"
        )
    window = attention.sliding_window
    if window is not None and window < config.model_config.max_model_len:
        raise UnsupportedModelError(
            f"layer {number} sees the last {window} tokens only: the sink would fall out of sight. Serve it with "
            f"max_model_len of at most {window}"
        )
    for what in ("logits_soft_cap", "alibi_slopes", "sinks"):
        value = getattr(attention.impl, what, None)
        if isinstance(value, torch.Tensor) or value:
            raise UnsupportedModelError(
                f"layer {number} has attention with {what}, which OutRo is not written for here"
            )
    if attention.kv_sharing_target_layer_name is not None:
        raise UnsupportedModelError(f"layer {number} shares keys and values, which OutRo is not written for here")
