"""Find the text decoder of a model and read what a method must know of it.

The decoder is found by what it is, never by a dotted path: the module that runs the text configuration's
``num_hidden_layers`` layers. Vision and audio towers and a talker have layers too, but not that configuration.
Attention modules are found by what their code does: it asks transformers' attention interface for a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from omnisink.decoder import composites, refusals
from omnisink.decoder.attention_code import resolve_interface, uses_interface

#: Part of decoder layers that carry several residual streams at once: "a token's activation" has no single meaning.
_STACKED_STREAMS = "altup"


@dataclass(frozen=True)
class AttentionSite:
    """Where one attention module calls the attention interface.

    Attributes
    ----------
    module : nn.Module
        The attention module.
    interface : object
        The `AttentionInterface` of the module's own file (most files share one).
    eager : callable or None
        The function that file runs for ``"eager"``, which the interface does not list.
    window : int or None
        Keys a query can reach back over, itself included; None where attention spans the whole prompt.
    """

    module: nn.Module
    interface: Any
    eager: Callable[..., Any] | None
    window: int | None = None

    @property
    def backend(self) -> str:
        """Name of the attention implementation the module asks for now."""
        return str(self.module.config._attn_implementation or "eager")  # type: ignore[union-attr]


@dataclass(frozen=True)
class Anatomy:
    """The text decoder of a model.

    Attributes
    ----------
    model : nn.Module
        The model as the user holds it.
    text_model : nn.Module
        The module that owns the decoder layers and receives the attention mask.
    layers : tuple of nn.Module
        The L decoder layers, in order; a layer's index here is its number everywhere in omnisink.
    attention : dict of int to AttentionSite
        The causal self-attention of each layer that has one.
    unreachable : dict of int to str
        Layers a method cannot act on, with the reason.
    path : str
        Where the decoder was found in a model that holds one under a name of its own, as ``"language_model"``.
    """

    model: nn.Module
    text_model: nn.Module
    layers: tuple[nn.Module, ...]
    attention: dict[int, AttentionSite] = field(default_factory=dict)
    unreachable: dict[int, str] = field(default_factory=dict)
    path: str = ""

    def backends(self) -> set[str]:
        """Names of the attention implementations that the layers ask for now."""
        return {site.backend for site in self.attention.values()}


def as_written(model: nn.Module) -> Any:
    """Return the model that `torch.compile` was given; the module it returns shows none of the model's arguments."""
    return getattr(model, "_orig_mod", model)


def read_anatomy(model: nn.Module) -> Anatomy:
    """Find the text decoder of `model`.

    Parameters
    ----------
    model : nn.Module
        A transformers model that has one decoder: a causal language model, or a multimodal model around one.

    Returns
    -------
    Anatomy
        The decoder, its layers and their attention.

    Raises
    ------
    UnsupportedModelError
        If there is no such decoder, or it cannot be reached through the attention interface.
    """
    model = as_written(model)
    config: Any = getattr(model, "config", None)
    found = _read(model, config.get_text_config(decoder=True)) if hasattr(config, "get_text_config") else None
    found = found or composites.read_inner(model, _read)
    if not found.attention:
        name = ".".join(part for part in (type(model).__name__, found.path) if part)
        raise refusals.unreachable(name, next(iter(found.unreachable.values())))
    return found


def _read(model: nn.Module, text_config: Any) -> Anatomy | None:
    """Return the decoder that runs a text configuration; None where there are no such layers."""
    name, depth = type(model).__name__, getattr(text_config, "num_hidden_layers", None)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise refusals.encoder_decoder(name)
    owners = [
        (module, tuple(child))
        for module in model.modules()
        for child in module.children()
        if isinstance(child, nn.ModuleList) and len(child) == depth and _belongs(module, text_config)
    ]
    # Lists beside the layers (per-layer norms, projections) have the same length and no attention.
    owners = [o for o in owners if any(_attention_modules(layer) for layer in o[1])] or owners[:1]
    if not owners:
        return None
    if len(owners) > 1:
        raise refusals.several_decoders(name, composites.paths(model, [owner for owner, _ in owners]))
    text_model, layers = owners[0]
    if any(_STACKED_STREAMS in child for layer in layers for child, _ in layer.named_children()):
        raise refusals.stacked_streams(name)
    sites: dict[int, AttentionSite] = {}
    unreachable: dict[int, str] = {}
    for index, layer in enumerate(layers):
        found = _self_attention(layer)
        if isinstance(found, str):
            unreachable[index] = found
        else:
            interface, eager = resolve_interface(found)
            sites[index] = AttentionSite(found, interface, eager, _window(text_config, found, index))
    return Anatomy(model, text_model, layers, sites, unreachable)


def _belongs(module: nn.Module, text_config: Any) -> bool:
    """Whether `module` runs the text configuration: the very object, or a copy of it a wrapper made."""
    config: Any = getattr(module, "config", None)
    return config is text_config or (type(config) is type(text_config) and config.to_dict() == text_config.to_dict())


def _attention_modules(layer: nn.Module) -> list[nn.Module]:
    return [module for module in layer.modules() if uses_interface(module)]


def _self_attention(layer: nn.Module) -> nn.Module | str:
    """Return the layer's causal self-attention, or why it has none that can be reached."""
    modules = _attention_modules(layer)
    if len(modules) == 1:
        if _is_cross_attention(layer, modules[0]):
            return "cross-attention layer: its keys are not the prompt's tokens"
        if getattr(modules[0], "indexer", None) is not None:
            return "sparse attention: an indexer chooses each query's keys, so the head outputs share no dense prompt"
        if getattr(modules[0], "is_causal", True) is False:
            return composites.NOT_CAUSAL
        return modules[0]
    return composites.why_no_attention(layer, len(modules))


def _is_cross_attention(layer: nn.Module, attention: nn.Module) -> bool:
    path = next(name for name, module in layer.named_modules() if module is attention)
    return "cross" in path or "CrossAttention" in type(attention).__name__


def _window(text_config: Any, attention: nn.Module, index: int) -> int | None:
    """Read how far back the layer's mask lets a query look; the call's own keyword is checked as well."""
    kinds = getattr(text_config, "layer_types", None) or ()
    kind = kinds[index] if index < len(kinds) else None
    window: Any = None
    if kind == "chunked_attention":
        window = getattr(text_config, "attention_chunk_size", None)
    elif kind == "sliding_attention":
        own = getattr(attention, "sliding_window", None)
        window = own if own is not None else getattr(text_config, "sliding_window", None)
    return int(window) if window else None
