"""Find the sinks of a prompt, and change nothing."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder.anatomy import as_written
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import UnsupportedModelError
from omnisink.methods.criteria import Criterion, resolve_criterion
from omnisink.methods.given import inputs_of, layers_of, model_of, run_of
from omnisink.methods.sink_method import SinkMethod
from omnisink.methods.sinkmap import SinkMap


@dataclass(frozen=True)
class SinkFinder(SinkMethod):
    """Mark sinks at every layer of a prefill and leave the head outputs as they are.

    Parameters
    ----------
    criterion, layers
        See `SinkMethod`.
    """

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Mark the sinks and note every token's largest activation."""
        super().residual_stream(layer, hidden, context)
        if layer in context.record.sinks and context.now.is_prefill:
            context.record.magnitudes[layer] = context.record.finite.magnitudes[layer]

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Return the head outputs unchanged."""
        return output


def find_sinks(
    model: Any,
    prompt: Any = None,
    *,
    criterion: str | Criterion = "massive_activation",
    channels: Sequence[int] | None = None,
    layers: int | Sequence[int] | None = None,
    **inputs: Any,
) -> SinkMap:
    """Find the sinks of a prompt with one forward pass.

    Parameters
    ----------
    model : nn.Module, Loaded or Pipeline
        A transformers model with one text decoder, what `load_model` returned, or a pipeline of transformers.
    prompt : str, sequence of str, mapping or Tensor, optional
        A text, or one for each sequence, where there is a tokenizer: what `load_model` returned makes a prompt of it
        as its `inputs` does, with the chat template; a pipeline takes its tokens as they are. Or the model's inputs by
        name, or (B, S) token ids.
    criterion : str or Criterion
        ``"massive_activation"`` (default), ``"sink_dimension"``, or an object such as `MassiveActivation` with its own
        thresholds.
    channels : sequence of int, optional
        The model's sink channels, for ``"sink_dimension"``.
    layers : int or sequence of int, optional
        Layers to examine; None is all but the last two.
    **inputs
        What the model takes: ``input_ids``, ``attention_mask``, pixel values, ... With a text and what `load_model`
        returned: what `Loaded.inputs` takes, as ``video="clip.mp4"``.

    Returns
    -------
    SinkMap
        Sinks of every sequence at every examined layer, with each token's largest activation.

    Raises
    ------
    UnsupportedModelError
        If the model's decoder cannot be read.
    OmnisinkError
        If there is no model or no prompt in what was given; or if the residual stream of a real token is not finite,
        with the layer and the cause.
    ValueError
        If the criterion is unknown.
    """
    finder = SinkFinder(resolve_criterion(criterion, channels), layers_of(layers, "find_sinks()"))
    decoder = model_of(model, "find_sinks()")
    taken = inputs_of(model, prompt, inputs, "find_sinks()")
    written = as_written(decoder)
    if type(written).forward is nn.Module.forward:
        raise UnsupportedModelError(
            f"{type(written).__name__} has no forward pass of its own; pass the part that reads prompts, its thinker"
        )
    parameters = inspect.signature(type(written).forward).parameters
    if "use_cache" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        taken.setdefault("use_cache", False)
    with torch.inference_mode(), finder(decoder) as trace:
        run_of(model, decoder, taken)
    return trace.sinks
