"""Find the transformers decoder inside a model of another program, wherever that program keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from omnisink.decoder.anatomy import read_anatomy
from omnisink.errors import OmnisinkError, UnsupportedModelError

#: Where lmms-eval's models keep what they run; any other attribute is looked at after these.
_USUAL = ("_model", "model")
#: Where an object that is no module, as a pipeline, keeps one.
_WITHIN = ("model", "_model", "llm")


def find_decoder(holder: Any, path: str | None = None) -> tuple[str, nn.Module]:
    """Find what a method is put on.

    Parameters
    ----------
    holder : object
        Model of another program: an object with a module among its attributes, or with an object that has one.
    path : str, optional
        Attribute of the decoder, as ``"_model.llm"``; None looks for it.

    Returns
    -------
    (str, nn.Module)
        Path of the decoder from `holder`, and the decoder: the outermost module that a method can be put on, in the
        first attribute that holds one.

    Raises
    ------
    OmnisinkError
        If there is nothing at `path`, or an attribute holds several decoders that generate.
    UnsupportedModelError
        If there is no decoder, or a method cannot be put on what `path` names.
    """
    kind = type(holder).__name__
    if path is not None:
        found = holder
        for name in path.split("."):
            found = getattr(found, name, None)
        if not isinstance(found, nn.Module):
            raise OmnisinkError(f"model_args: decoder={path}: {kind} has no module of this name")
        read_anatomy(found)
        return path, found
    refused = ""
    for place, module in modules_held(holder):
        decoders, why = _decoders(place, module)
        # Of a tower or a talker beside the language model, only the one that generates is meant.
        decoders = {p: part for p, part in decoders.items() if hasattr(part, "generate")} or decoders
        if len(decoders) > 1:
            raise OmnisinkError(
                f"{kind} has several decoders, {', '.join(decoders)}: name the one that answers in model_args, as "
                f"decoder={next(iter(decoders))}"
            )
        if decoders:
            return next(iter(decoders.items()))
        refused = refused or why
    because = f": {refused}" if refused else "; a model behind an API, or in an engine of its own, has none"
    raise UnsupportedModelError(f"no decoder of transformers was found in {kind}{because}")


def modules_held(holder: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that an object holds, each once, with the names of their attributes."""
    seen: set[int] = set()
    for name in dict.fromkeys((*_USUAL, *vars(holder))):
        value = getattr(holder, name, None)
        parts = {name: value}
        if value is not None and not isinstance(value, nn.Module):
            parts = {f"{name}.{within}": getattr(value, within, None) for within in _WITHIN}
        for path, part in parts.items():
            if isinstance(part, nn.Module) and id(part) not in seen:
                seen.add(id(part))
                yield path, part


def _decoders(place: str, module: nn.Module) -> tuple[dict[str, nn.Module], str]:
    """Return the outermost decoders of a module by path, and why its outermost model of transformers is none."""
    found: dict[str, nn.Module] = {}
    of_model, of_module = "", ""
    for name, part in module.named_modules():
        if any(name.startswith(f"{inside}.") or not inside for inside in found):
            continue
        is_model = isinstance(part, PreTrainedModel)
        if name and not is_model:
            continue
        try:
            anatomy = read_anatomy(part)
        except UnsupportedModelError as error:
            if is_model:
                of_model = of_model or str(error)
            else:
                of_module = str(error)
        else:
            inner = f"{name}.{anatomy.path}".strip(".")
            found[inner] = part.get_submodule(anatomy.path) if anatomy.path else part
    return {f"{place}.{name}".rstrip("."): part for name, part in found.items()}, of_model or of_module
