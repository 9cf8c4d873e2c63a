"""Know the sinks of a prompt afterwards: for methods that act on their keys and values, also in decode steps."""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import first_key
from omnisink.errors import OmnisinkError
from omnisink.maths.host import is_eager_cpu

#: With a layer, the key under which a cache keeps the sinks of its prompts.
SINKS = "sinks"


class PromptSinks:
    """The part of `omnisink.methods.sink_method.SinkMethod` that finds the sinks of a prompt among a layer's keys."""

    def prompt_sinks(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Return the sinks of a layer's prompts, in the prefill and in the passes after it.

        Parameters
        ----------
        call : AttentionCall
            The layer's call.
        context : Context
            The pass that is running.

        Returns
        -------
        Tensor or None
            (B, S) bool over the prompt of the prefill, on the device of the layer; None where there is none to act on.

        Raises
        ------
        OmnisinkError
            If the layer's cache no longer holds the whole prompt, as one with a window does.
        """
        marked = context.now.state.tensors.get((SINKS, call.layer))
        if marked is None or (is_eager_cpu(marked) and not bool(marked.any())):
            return None
        return self.among_keys(call, marked, context)

    def among_keys(self, call: AttentionCall, marked: Tensor, context: Context) -> Tensor:
        """Return marks of the prompt (B, S), on the device of a layer whose keys begin with the prompt's.

        Raises
        ------
        OmnisinkError
            If the layer's cache no longer holds the whole prompt, as one with a window does.
        """
        # Where a window has moved on, the layer may still hold as many keys as the prompt has tokens.
        if first_key(call, context.now) > 0 or call.key.shape[2] < marked.shape[1]:
            raise OmnisinkError(
                f"layer {call.layer} keeps {call.key.shape[2]} keys of a prompt of {marked.shape[1]} tokens: "
                f"{type(self).__name__} cannot find the sinks among them"
            )
        return marked.to(call.key.device)


def over_keys(marked: Tensor, keys: int) -> Tensor:
    """Extend marks of a prompt (B, S) by unmarked tokens after it, to (B, keys)."""
    return torch.nn.functional.pad(marked, (0, keys - marked.shape[1]))
