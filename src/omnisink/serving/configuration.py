"""Where OutRo's settings stand in vLLM's configuration: `additional_config`, which every process of a server has."""

from __future__ import annotations

from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.serving.settings import KEY, ServingSettings, read_settings

#: Methods that a server cannot run, by the name under which somebody may give their settings, and why.
NOT_SERVED = {
    "sink-router": "it decides in every step which heads attend, and vLLM's attention is one kernel over a paged "
    "cache, which attends with all of them",
}


def refuse_others(extra: Any) -> None:
    """Refuse settings of a method that a server cannot run, where they stand in `additional_config`.

    Raises
    ------
    OmnisinkError
        Naming the method and the reason: without it the server would run as if nothing had been asked for.
    """
    for name, why in NOT_SERVED.items():
        if isinstance(extra, dict) and extra.get(name) not in (None, False):
            raise OmnisinkError(f"{name} cannot be run in vLLM: {why}. Run it on transformers")


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
