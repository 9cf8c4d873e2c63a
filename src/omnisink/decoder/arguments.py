"""Find the key/value cache and the attention mask among the arguments of a call, however they are passed and named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from omnisink.decoder.caches import BASE_CACHE
from omnisink.errors import UnsupportedModelError

#: Finds one argument in the positional and the named arguments of a call; None where it is not there.
Finder = Callable[[tuple[Any, ...], dict[str, Any]], Any]

#: What transformers calls the cache of a layer; the second is the name up to 4.55, and in code written for it.
_CACHE_NAMES = ("past_key_values", "past_key_value")
#: Parts of the names under which a text model may take a mask that is not called `attention_mask`.
_MASK_LIKE = ("mask", "pad")


@dataclass(frozen=True)
class UnnamedMask:
    """Stands for the mask of a text model that has no argument called ``attention_mask``.

    Attributes
    ----------
    text_model : str
        Its class.
    candidates : dict of str to Tensor
        What it was given that might be its mask, by the argument's name.
    """

    text_model: str
    candidates: dict[str, Tensor]


def find_argument(module: nn.Module, name: str) -> Finder:
    """Return what finds one argument of the module's ``forward`` by name, however it is passed."""
    names = _parameters(module)
    position = names.index(name) if name in names else None

    def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in kwargs:
            return kwargs[name]
        return args[position] if position is not None and position < len(args) else None

    return find


def find_cache(module: nn.Module) -> Finder:
    """Return what finds the key/value cache among the arguments of a module's ``forward``.

    It is looked for by its names, and else by its type: code from outside transformers calls it as it likes.
    """
    named = [find_argument(module, name) for name in _CACHE_NAMES]

    def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for by_name in named:
            if (cache := by_name(args, kwargs)) is not None:
                return cache
        return next((value for value in (*args, *kwargs.values()) if isinstance(value, BASE_CACHE)), None)

    return find


def find_mask(text_model: nn.Module) -> Finder:
    """Return what finds the attention mask among the arguments of a text model's ``forward``, or an `UnnamedMask`."""
    by_name = find_argument(text_model, "attention_mask")
    names = _parameters(text_model)
    if "attention_mask" in names:
        return by_name

    def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "attention_mask" in kwargs:
            return kwargs["attention_mask"]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        masks = {
            name: value
            for name, value in given.items()
            if isinstance(value, Tensor) and any(part in name for part in _MASK_LIKE)
        }
        return UnnamedMask(type(text_model).__name__, masks)

    return find


def check_cache(cache: Any, layer: nn.Module, *, model_has_one: bool) -> None:
    """Refuse a cache that cannot be asked how much it holds, and a layer whose cache cannot be found.

    Parameters
    ----------
    cache : object
        What was found among the layer's arguments.
    layer : nn.Module
        The layer.
    model_has_one : bool
        Whether the text model was given a cache, or returned one.

    Raises
    ------
    UnsupportedModelError
        If every pass would be taken for the first one.
    """
    kind = type(layer).__name__
    if cache is None and model_has_one:
        raise UnsupportedModelError(
            f"the model keeps a cache, but {kind} takes none that can be found (an argument called past_key_values): "
            "prompts and generated tokens could not be told apart. Call the model with use_cache=False"
        )
    if cache is not None and not (hasattr(cache, "get_seq_length") and hasattr(cache, "__dict__")):
        raise UnsupportedModelError(
            f"{kind} is given a {type(cache).__name__} as its cache, which does not say how many tokens it holds. "
            "Use a cache of transformers, such as DynamicCache, or use_cache=False"
        )


def _parameters(module: nn.Module) -> list[str]:
    """Names of the positional arguments of the class's own ``forward``, without ``self``."""
    return [
        name
        for name, parameter in list(inspect.signature(type(module).forward).parameters.items())[1:]
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
