"""A method around any model that lmms-eval has, as long as a decoder of transformers runs inside it.

lmms-eval makes a model by calling the class that it finds under a name. Ours returns an object of a class that is
derived from that of the model which ``inner`` names: it answers every request with the method attached. lmms-eval
therefore sees that model with all its attributes, and nothing stays attached between two calls.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar

from lmms_eval.api.model import lmms
from torch import nn

from omnisink.decoder.patching import replace_attribute
from omnisink.errors import OmnisinkError, reason
from omnisink.integrations.lmms.decoders import find_decoder, modules_held
from omnisink.integrations.lmms.settings import read_method
from omnisink.methods.base import Method

#: Our own names, and what to write in their place.
_OURS = {
    "omnisink": "it takes a method itself: --model omnisink --model_args method=...",
    "omnisink_around": "name a model of lmms-eval's",
}


class OmnisinkAroundSimple(lmms):  # type: ignore[misc]
    """A model of lmms-eval's, as it is for simple tasks, with a method around it.

    Parameters
    ----------
    inner : str
        Name of the model in lmms-eval, as ``"video_salmonn_2"``.
    method : str
        As for `OmnisinkChat`: one at a time. ``"baseline"``, the default, attaches nothing.
    decoder : str, optional
        Attribute of that model which the method is put on, as ``"_model.llm"``; None looks for it.
    **model_args
        Whatever the model itself takes; lmms-eval adds ``batch_size`` and ``device``.

    Raises
    ------
    OmnisinkError
        If `inner` is missing, unknown, or cannot be built, or there is no such method.
    UnsupportedModelError
        If there is no decoder of transformers in the model, or the method refuses it.
    """

    is_simple: ClassVar[bool] = True

    def __new__(
        cls, inner: str | None = None, method: str = "baseline", decoder: str | None = None, **model_args: Any
    ) -> Any:
        """Build the model that is named, with the method around it."""
        if inner is None:
            raise OmnisinkError("model_args: name the model of lmms-eval, as inner=llava_onevision")
        chosen = read_method(method, str(model_args.get("pretrained", "")), None, 0.1)
        kind = _class_of(str(inner), cls.is_simple)
        try:
            made = type(kind.__name__, (_Around, kind), {})(**model_args)
        except Exception as error:
            raise OmnisinkError(f"inner={inner}: lmms-eval's model cannot be built: {reason(error)}") from error
        made.omnisink = Around(str(inner), chosen, decoder)
        made.omnisink.try_on(made)
        return made


class OmnisinkAroundChat(OmnisinkAroundSimple):
    """The same for chat tasks. A model that has no class for them is taken as it is for simple ones."""

    is_simple: ClassVar[bool] = False


@dataclass(frozen=True)
class Around:
    """What is put around a model of lmms-eval's while it answers.

    Attributes
    ----------
    inner : str
        Name of the model in lmms-eval.
    method : Method or None
        The method; None is the baseline.
    decoder : str or None
        Attribute to put it on; None looks for it.
    """

    inner: str
    method: Method | None
    decoder: str | None = None

    def try_on(self, model: Any) -> None:
        """Attach and detach the method, so that what it refuses is known before any question is asked."""
        if self.method is not None:
            with self.method(find_decoder(model, self.decoder)[1]):
                pass

    @contextmanager
    def attached(self, model: Any, requests: Sequence[Any]) -> Iterator[None]:
        """Attach the method while `model` answers requests.

        Raises
        ------
        OmnisinkError
            If `generate` failed, which many models of lmms-eval take for an empty answer, or nothing was run under
            the method.
        """
        failures: list[Exception] = []
        with _stopping_at_errors(model, failures):
            if self.method is None:
                yield
            else:
                path, decoder = find_decoder(model, self.decoder)
                with self.method(decoder) as trace:
                    yield
                if requests and not failures and trace.is_empty:
                    name = type(self.method).__name__
                    raise OmnisinkError(
                        f"{self.inner} answered without running {path} under {name}: name what it runs in model_args, "
                        "as decoder=_model.llm"
                    )
        if failures:
            raise OmnisinkError(f"{self.inner}: {reason(failures[0])}") from failures[0]


class _Around(lmms):  # type: ignore[misc]
    """What is derived from, before the class of a model, to answer with a method attached."""

    omnisink: Around

    def generate_until(self, requests: Sequence[Any]) -> Any:
        """Answer requests."""
        with self.omnisink.attached(self, requests):
            return super().generate_until(requests)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> Any:
        """Answer requests of several rounds."""
        with self.omnisink.attached(self, requests):
            return super().generate_until_multi_round(requests)

    def generate_visual_cot(self, requests: Sequence[Any]) -> Any:
        """Answer requests with a picture that the model makes first."""
        with self.omnisink.attached(self, requests):
            return super().generate_visual_cot(requests)

    def loglikelihood(self, requests: Sequence[Any]) -> Any:
        """Return likelihoods; the method works on prompt and continuation."""
        with self.omnisink.attached(self, requests):
            return super().loglikelihood(requests)


class _Stop(BaseException):
    """Passes through a model's ``except Exception``, behind which an error would become an empty answer."""


@contextmanager
def _stopping_at_errors(model: Any, failures: list[Exception]) -> Iterator[None]:
    """End the block at the first error of any `generate` in a model, and note the error in `failures`."""
    with ExitStack() as stack:
        for _, held in modules_held(model):
            for module in held.modules():
                # What is compiled hands the attribute on to the module inside, which is among these too.
                if callable(getattr(module, "generate", None)) and not hasattr(module, "_orig_mod"):
                    stack.callback(replace_attribute(module, "generate", _noting(module, failures)))
        with suppress(_Stop):
            yield


def _noting(module: nn.Module, failures: list[Exception]) -> Callable[..., Any]:
    generate: Any = module.generate

    @wraps(generate)
    def noting(*args: Any, **kwargs: Any) -> Any:
        try:
            return generate(*args, **kwargs)
        except Exception as error:
            failures.append(error)
            raise _Stop from error

    return noting


def _class_of(inner: str, simple: bool) -> type:
    """Return the class of a model of lmms-eval's, as lmms-eval itself would choose it."""
    from lmms_eval.models import MODEL_REGISTRY_V2, get_model

    if inner in _OURS:
        raise OmnisinkError(f"model_args: inner={inner}: {_OURS[inner]}")
    names = MODEL_REGISTRY_V2.list_model_names()
    if inner not in names:
        near = difflib.get_close_matches(inner, names, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `lmms-eval models` lists them"
        raise OmnisinkError(f"model_args: lmms-eval has no model {inner!r}{hint}")
    try:
        found: type = get_model(inner, force_simple=simple)
    except Exception as error:
        raise OmnisinkError(f"inner={inner}: lmms-eval cannot import this model: {reason(error)}") from error
    return found
