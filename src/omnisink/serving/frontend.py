"""What a server's own process needs: requests that may say something about OutRo, and numbers on `/metrics`.

A request says it as ``{"outro": {...}}`` beside the other fields (``extra_body`` of the openai client), or as
``vllm_xargs={"outro": "..."}`` with JSON text, or, offline, as ``SamplingParams(extra_args={"outro": {...}})``. vLLM
ignores fields that it does not know, so they are taken from the request here and carried in `extra_args`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.serving import metrics
from omnisink.serving.configuration import refuse_others, settings_of
from omnisink.serving.settings import KEY, ServingSettings, read_request

#: Requests of the server that become sampling parameters.
_REQUESTS = (
    ("vllm.entrypoints.openai.chat_completion.protocol", "ChatCompletionRequest"),
    ("vllm.entrypoints.openai.completion.protocol", "CompletionRequest"),
    ("vllm.entrypoints.openai.responses.protocol", "ResponsesRequest"),
)
_BEAMS = "beam search runs every step as a new prompt, with other sinks; OutRo does not support it"
#: The settings of the server in this process; None before there is one.
_server: ServingSettings | None = None


def install(config: Any) -> None:
    """Let this process read what requests say about OutRo. May be called again.

    Parameters
    ----------
    config : VllmConfig
        With the setting.
    """
    global _server
    _server = settings_of(config)
    metrics.install()
    from vllm.entrypoints.generate.beam_search.offline import BeamSearchOfflineMixin
    from vllm.v1.engine.input_processor import InputProcessor

    _wrap(InputProcessor, "process_inputs", _check)
    _wrap(BeamSearchOfflineMixin, "beam_search", _refuse_offline_beams)
    for module, name in _REQUESTS:
        kind = getattr(__import__(module, fromlist=[name]), name)
        _wrap(kind, "to_sampling_params", _carry)
        if hasattr(kind, "to_beam_search_params"):
            _wrap(kind, "to_beam_search_params", _refuse_beams)


def _wrap(kind: type, name: str, around: Callable[..., Any]) -> None:
    """Put `around(original, self, ...)` in the place of a method, once."""
    original = getattr(kind, name)
    if getattr(original, "of_outro", False):
        return

    @functools.wraps(original)
    def method(self: Any, *args: Any, **named: Any) -> Any:
        return around(original, self, *args, **named)

    method.of_outro = True  # type: ignore[attr-defined]
    setattr(kind, name, method)


def _refusal(message: str) -> Exception:
    """Make the error that vLLM answers with status 400, and count it."""
    from vllm.exceptions import VLLMValidationError

    metrics.count_refusal()
    return VLLMValidationError(message, parameter=KEY)


def _check(original: Any, processor: Any, request_id: str, prompt: Any, params: Any, *args: Any, **named: Any) -> Any:
    """Check a request before it goes to the engine: the last place where the mistake of one is not that of all."""
    settings = settings_of(processor.vllm_config)
    if settings is not None and hasattr(params, "extra_args"):
        if named.get("resumable"):
            raise _refusal("a prompt that grows while it is answered would be prefilled in parts; OutRo refuses it")
        _read(params.extra_args or {}, settings)
    return original(processor, request_id, prompt, params, *args, **named)


def _carry(original: Any, request: Any, *args: Any, **named: Any) -> Any:
    """Put what a request says into its sampling parameters."""
    params = original(request, *args, **named)
    if _server is None:
        return params
    asked = getattr(request, "model_extra", None) or {}
    _refuse_methods(asked)
    said = asked.get(KEY)
    extra = params.extra_args or {}
    if said is not None:
        if KEY in extra:
            raise _refusal("outro stands in the request twice, beside its fields and in vllm_xargs: give one of them")
        params.extra_args = {**extra, KEY: said}
    # Here an answer has not begun, so that the refusal of a streamed one has a status of its own.
    _read(params.extra_args or {}, _server)
    return params


def _refuse_methods(extra: Any) -> None:
    """Refuse a request for a method that no server runs: it would be answered as if it had not asked."""
    try:
        refuse_others(extra)
    except OmnisinkError as error:
        raise _refusal(str(error)) from None


def _read(extra: Any, settings: ServingSettings) -> None:
    """Check what a request says, among what else its sampling parameters carry."""
    _refuse_methods(extra)
    try:
        read_request(extra.get(KEY), settings)
    except ValueError as error:
        raise _refusal(str(error)) from None


def _refuse_beams(original: Any, request: Any, *args: Any, **named: Any) -> Any:
    if _server is not None:
        raise _refusal(_BEAMS)
    return original(request, *args, **named)


def _refuse_offline_beams(original: Any, llm: Any, *args: Any, **named: Any) -> Any:
    if settings_of(llm.llm_engine.vllm_config) is not None:
        raise _refusal(_BEAMS)
    return original(llm, *args, **named)
