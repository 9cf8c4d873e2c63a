"""Find the key/value cache and the attention mask among the arguments of a call, however they are passed and named."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from omnisink.decoder import refusals
from omnisink.decoder.caches import BASE_CACHE
from omnisink.decoder.masks import UnnamedMask, most_telling, token_mask_of_prepared
from omnisink.decoder.passes import Pass

#: Finds one argument in the positional and the named arguments of a call; None where it is not there.
Finder = Callable[[tuple[Any, ...], dict[str, Any]], Any]

#: What transformers calls the cache of a layer; the second is the name up to 4.55, and in code written for it.
_CACHE_NAMES = ("past_key_values", "past_key_value")


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
    names = _parameters(text_model)
    if "attention_mask" in names:
        return find_argument(text_model, "attention_mask")
    return UnnamedMask.finder(type(text_model).__name__, names)


def token_mask_of(mask: Any, now: Pass) -> Tensor | None:
    """Tell real tokens from padding.

    Parameters
    ----------
    mask : object
        The text model's ``attention_mask``: None, (B, T) of ones and zeros, a mapping of masks by layer kind, or what
        `omnisink.decoder.masks.token_mask_of_prepared` takes.
    now : Pass
        The pass. In later passes than the prefill a 2-D mask covers the cached tokens too, and only its end belongs to
        this pass. Its `deferred_checks` take what only the values of the mask can tell.

    Returns
    -------
    Tensor or None
        (B, S) bool, on the pass's device, or None where every token is real.

    Raises
    ------
    UnsupportedModelError
        If the mask has a shape or type that does not say which tokens are padding.
    """
    if isinstance(mask, Mapping):
        mask = most_telling(mask)
    if mask is None:
        return None
    if not (isinstance(mask, Tensor) and mask.dim() == 2):
        return token_mask_of_prepared(mask, now)
    part = mask[:, : now.length] if now.is_prefill else mask[:, -now.length :]
    if part.shape != (now.batch, now.length):
        raise refusals.mask_of_another_shape(tuple(mask.shape), now.batch, now.length)
    return part.to(device=now.device) != 0


def _parameters(module: nn.Module) -> list[str]:
    """Names of the positional arguments of the class's own ``forward``, without ``self``."""
    return [
        name
        for name, parameter in list(inspect.signature(type(module).forward).parameters.items())[1:]
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
