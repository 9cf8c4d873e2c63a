"""The settings of the model and of each task's generation in lmms-eval, checked and turned into ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.outro import OutRo
from omnisink.methods.registry import kinds_named, parse_one_method
from omnisink.methods.shipped import default_outro, default_router

#: Longest answer where a task says nothing.
MAX_NEW_TOKENS = 1024
_LENGTH = ("max_new_tokens", "max_gen_toks")
#: Only with sampling do these mean anything, and transformers warns of them without it.
_SAMPLING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True)
class Generation:
    """Settings of the generation of one request.

    Attributes
    ----------
    max_new_tokens : int
        Longest answer.
    options : tuple of (str, object)
        Further options of `generate`.
    until : tuple of str
        The answer ends before the first of these.
    """

    max_new_tokens: int
    options: tuple[tuple[str, Any], ...] = ()
    until: tuple[str, ...] = ()

    def cut(self, text: str) -> str:
        """Return an answer up to where it is to end."""
        ends = [at for stop in self.until if (at := text.find(stop)) >= 0]
        return text[: min(ends)].strip() if ends else text


def read_generation(given: Mapping[str, Any]) -> Generation:
    """Read a task's ``generation_kwargs``.

    Parameters
    ----------
    given : mapping
        ``max_new_tokens``, ``until``, and options of `generate`. A temperature of 0 is greedy. What `generate` does
        not know, as ``image_aspect_ratio``, is left out, and a warning names it.

    Returns
    -------
    Generation
        The same in our terms.

    Raises
    ------
    OmnisinkError
        If the length is not a positive number, or more than one answer is asked for.
    """
    rest = dict(given)
    lengths = [rest.pop(name, None) for name in _LENGTH]
    length = next((n for n in lengths if n is not None), MAX_NEW_TOKENS)
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise OmnisinkError(f"max_new_tokens must be a positive number, got {length!r}")
    until = rest.pop("until", None) or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    if (rest.pop("num_return_sequences", None) or 1) > 1:
        raise OmnisinkError("one answer is given to a question; num_return_sequences must be 1")
    options = {name: value for name, value in rest.items() if value is not None and _known(name)}
    # As in lmms-eval's own models, a temperature is enough to turn sampling on.
    sampled = bool(options.pop("do_sample", (rest.get("temperature") or 0) > 0)) and rest.get("temperature") != 0
    if sampled:
        options["do_sample"] = True
    else:
        options = {name: value for name, value in options.items() if name not in _SAMPLING}
    return Generation(length, tuple(sorted(options.items())), tuple(stop for stop in until if stop))


@lru_cache
def _known(name: str) -> bool:
    """Whether `generate` takes an option; an option that it does not take is reported once."""
    from transformers import GenerationConfig

    known = hasattr(GenerationConfig(), name)
    if not known:
        logging.getLogger(__name__).warning("omnisink: generate() has no option %r; it is left out", name)
    return known


def read_method(method: str, pretrained: str, gamma: float | None, tau: float) -> Method | None:
    """Return the one method that ``model_args`` name.

    Parameters
    ----------
    method : str
        As for `omnisink.methods.registry.parse_methods`: ``"baseline"``, ``"outro"``, ``"outro:rotate"``,
        ``"outro+vcd"``, ``"file.py::Class"``.
    pretrained : str
        Name of the model; the embedded ones have strengths of their own.
    gamma : float, optional
        Strength of the rotation; None is the model's default.
    tau : float
        Temperature of the gate.

    Returns
    -------
    Method or None
        None is the baseline.

    Raises
    ------
    OmnisinkError
        If there is no such method, a setting is out of range, or more than one method is named.
    """
    try:
        kinds = kinds_named(str(method))
        if gamma is not None and kinds and not any(issubclass(kind, OutRo) for kind in kinds):
            raise OmnisinkError(
                f"gamma is a setting of OutRo, and {method} does not run OutRo: give settings with the name of the "
                "method"
            )
        outro = default_outro(pretrained)
        outro = replace(outro, gamma=outro.gamma if gamma is None else gamma, tau=tau)
    except (TypeError, ValueError) as error:
        raise OmnisinkError(str(error)) from None
    return parse_one_method(str(method), [outro, default_router(pretrained)])
