"""The residual stream of a layer, taken where the layer's first norm has added it up.

vLLM's decoder layers carry the residual stream in two parts, which `input_layernorm` adds. On the layers of the text
decoder the norm's class is replaced by a subclass that shows the sum to an operator. It is an operator of PyTorch's
own kind, so that a compiled graph keeps it: it claims to change the norm's result, which is what queries, keys and
values are made of, and so runs before them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PrefillFlag:
    """Whether the pass that runs holds a prompt. If it does not, the hook does nothing."""

    running = True


_KINDS: dict[type[nn.Module], type[nn.Module]] = {}


def _show(residual: Tensor, layer: str) -> None:
    from vllm.forward_context import get_forward_context

    context = get_forward_context()
    metadata = context.attn_metadata
    if not isinstance(metadata, dict):
        return  # vLLM tries the model out, with nothing in it.
    step = getattr(metadata[layer], "outro", None)
    if step is not None and step.prefills:
        context.no_compile_layers[layer].impl.outro.observe(step, residual)


@torch.library.custom_op("omnisink::observe", mutates_args=("normed",))
def observe(normed: Tensor, residual: Tensor, layer: str) -> None:
    """Show a layer the residual stream (tokens, d) that enters it; nothing is changed."""
    _show(residual, layer)


@observe.register_fake
def _(normed: Tensor, residual: Tensor, layer: str) -> None:
    return None


def show(normed: Tensor, residual: Tensor, layer: str, prefills: PrefillFlag) -> None:
    """Call the operator where a graph is being made of it, and what is in it where it would only cost time."""
    if torch.compiler.is_compiling():
        torch.ops.omnisink.observe(normed, residual, layer)
    elif prefills.running:
        _show(residual, layer)


def _with_hook(kind: Any) -> type[nn.Module]:
    """Make the subclass of a norm's class; with one base, so that the class of a norm that is there can become it."""

    def forward(self: Any, x: Tensor, residual: Tensor | None = None) -> Any:
        if residual is None:
            normed = kind.forward(self, x)
            show(normed, x, self.outro_layer, self.outro_prefills)
            return normed
        normed, total = kind.forward(self, x, residual)
        show(normed, total, self.outro_layer, self.outro_prefills)
        return normed, total

    return type(f"Hooked{kind.__name__}", (kind,), {"forward": forward})


def attach_hook(norm: nn.Module, layer: str, prefills: PrefillFlag) -> None:
    """Have a norm show what it normalizes.

    Parameters
    ----------
    norm : nn.Module
        The first norm of a decoder layer; its class is changed, its parameters are not.
    layer : str
        vLLM's name of the layer's attention.
    prefills : PrefillFlag
        Says when to look; whoever plans the passes sets it.
    """
    kind = type(norm)
    if kind not in _KINDS:
        _KINDS[kind] = _with_hook(kind)
    norm.__class__ = _KINDS[kind]
    norm.outro_layer = layer  # type: ignore[assignment]
    norm.outro_prefills = prefills  # type: ignore[assignment]
