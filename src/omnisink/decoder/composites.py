"""Find the language model in a model whose configuration does not lead to it, and say why a layer has no attention.

Code from outside transformers holds its language model under a name of its own (``language_model``, ``llm``), with a
configuration that transformers does not look for (``llm_config``). Towers and talkers lie beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from omnisink.decoder import refusals
from omnisink.decoder.configuration import depth, text_config
from omnisink.errors import UnsupportedModelError

if TYPE_CHECKING:
    from omnisink.decoder.anatomy import Anatomy

#: Why an encoder is not taken for a decoder.
NOT_CAUSAL = "its attention is not causal: every token sees the whole prompt already"

#: From a part and its text configuration to the decoder in it; None where there are no such layers.
Read = Callable[[nn.Module, Any], "Anatomy | None"]


def read_inner(model: nn.Module, read: Read) -> Anatomy:
    """Find the one language model among the parts of a model.

    Parameters
    ----------
    model : nn.Module
        The model, whose own configuration leads to no decoder.
    read : callable
        Reads a part.

    Returns
    -------
    Anatomy
        With `model` as its model, and the path of the part. Its attention may be out of reach.

    Raises
    ------
    UnsupportedModelError
        If there is none, or several; the message says what to pass.
    """
    name, config = type(model).__name__, getattr(model, "config", None)
    known = hasattr(config, "get_text_config")
    if known and (found := read(model, text_config(config))) is not None:
        return replace(found, path=paths(model, [found.text_model])[0])
    inside = _language_models(model, read)
    if len(inside) == 1 and not type(model).__module__.startswith("torch.nn.parallel"):
        path, found_or_error = next(iter(inside.items()))
        if isinstance(found_or_error, UnsupportedModelError):
            raise found_or_error
        return replace(found_or_error, model=model, path=path)
    if len(inside) > 1:
        raise refusals.several_decoders(name, list(inside))
    instead = f"; pass the language model in it, model.{next(iter(inside))}" if inside else ""
    if known:
        raise refusals.no_layers(name, depth(text_config(config)), instead)
    raise refusals.no_configuration(name, instead)


def paths(model: nn.Module, owners: Sequence[nn.Module]) -> list[str]:
    """Return the path of the outermost part with a configuration that holds one owner of layers and no other."""
    found = []
    for owner in owners:
        others = {id(other) for other in owners if other is not owner}
        for name, part in model.named_modules():
            held = {id(module) for module in part.modules()} if name and _is_model(part) else set()
            if id(owner) in held and not others & held:
                found.append(name)
                break
    return found


def why_no_attention(layer: nn.Module, found: int) -> str:
    """Say why a layer with `found` attention modules, none or several, has no attention to act on."""
    if found > 1:
        return "more than one attention in the layer"
    kinds = {n for n, _ in layer.named_children()}
    if any("linear_attn" in n or "mamba" in n or "conv" in n or "mixer" in n or "recurrent" in n for n in kinds):
        return "linear-attention or state-space layer: it has no attention over tokens"
    return "its attention does not use the attention interface (ALL_ATTENTION_FUNCTIONS)"


def _language_models(model: nn.Module, read: Read) -> dict[str, Anatomy | UnsupportedModelError]:
    """Return the outermost parts that write words, by path, each with its decoder or with why it is refused.

    One whose attention is out of reach counts as well: a talker beside it is not taken in its place.
    """
    found: dict[str, Anatomy | UnsupportedModelError] = {}
    seen: set[int] = set()
    for name, part in model.named_modules():
        if not name or not _is_model(part) or any(name.startswith(f"{outer}.") for outer in found):
            continue
        config: Any = text_config(part.config)
        if depth(config) is None or not _has_vocabulary(part, config):
            continue
        try:
            anatomy = read(part, config)
        except UnsupportedModelError as error:
            if not getattr(part.config, "is_encoder_decoder", False):
                found[name] = error
            continue
        if anatomy is None or id(anatomy.text_model) in seen:
            continue
        seen.add(id(anatomy.text_model))
        # An encoder of texts, whose layers all see the whole of them.
        if anatomy.attention or set(anatomy.unreachable.values()) != {NOT_CAUSAL}:
            found[name] = anatomy
    return found


def _is_model(part: nn.Module) -> bool:
    return hasattr(getattr(part, "config", None), "get_text_config")


def _has_vocabulary(part: nn.Module, config: Any) -> bool:
    """Whether a part embeds words; towers have no vocabulary."""
    size = getattr(config, "vocab_size", None)
    return size is not None and any(
        isinstance(module, nn.Embedding) and module.num_embeddings >= size for module in part.modules()
    )
