"""Where OutRo's settings stand in vLLM's configuration: `additional_config`, which every process of a server has."""

from __future__ import annotations

from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.serving.settings import KEY, ServingSettings, read_settings

_BRANCHES = (
    "it runs further passes in step with the model's own, each with a cache of its own, and vLLM schedules one pass "
    "for each request"
)
_WEIGHTS = (
    "it changes what tokens attend to, or by how much, and vLLM's attention is one kernel over a paged cache that "
    "returns no weights"
)
_HEADS = "it sets single head outputs, and the plug-in has kernels for the rotation and the relaxation of OutRo only"
#: Methods that a server cannot run, by the name under which somebody may give their settings, and why.
NOT_SERVED = {
    "sink-router": "it decides in every step which heads attend, and vLLM's attention is one kernel over a paged "
    "cache, which attends with all of them",
    "outro-control": "it measures how far it turns, and the plug-in has kernels for OutRo's rotation and relaxation "
    "only",
    "plausible-tokens": "it cuts logits, which the plug-in leaves to vLLM; the sampling parameter min_p makes such a "
    "cut",
    "fork-merge": "it reads every prompt several times and merges the keys and values, and vLLM prefills a prompt "
    "once",
    **dict.fromkeys(("vcd", "icd", "avcd", "mad", "sid", "pai-guidance", "asd-guidance"), _BRANCHES),
    **dict.fromkeys(("var", "pai", "asd", "act", "visflow", "vision-sink-head", "sink-track"), _WEIGHTS),
    **dict.fromkeys(("streaming-llm", "knockout-tokens", "replace-sink-value", "zero-sink-key"), _WEIGHTS),
    **dict.fromkeys(("zero-heads", "prune-sink-heads"), _HEADS),
}


def refuse_others(extra: Any) -> None:
    """Refuse settings of a method that a server cannot run, where they stand in `additional_config` or in a request.

    Parameters
    ----------
    extra : object
        Values by name. A name may have settings, and be one of several methods: ``"outro+vcd:alpha=0.5"``.

    Raises
    ------
    OmnisinkError
        Naming the method and the reason: without it the server would run as if nothing had been asked for.
    """
    for key, value in (extra if isinstance(extra, dict) else {}).items():
        names = [] if value in (None, False) else [one.partition(":")[0].strip() for one in str(key).split("+")]
        if refused := next((name for name in names if name in NOT_SERVED), None):
            raise OmnisinkError(f"{refused} cannot be run in vLLM: {NOT_SERVED[refused]}. Run it on transformers")


def settings_of(config: Any) -> ServingSettings | None:
    """Return the settings in a `VllmConfig`; None where the method is off.

    Raises
    ------
    OmnisinkError
        If they are wrong.
    """
    extra = getattr(config, "additional_config", None)
    given = extra.get(KEY) if isinstance(extra, dict) else None
    if given is None or given is False:
        return None
    try:
        return read_settings(given)
    except ValueError as error:
        raise OmnisinkError(f"additional_config: {error}") from None
