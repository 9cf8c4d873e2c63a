"""Where OutRo's settings stand in vLLM's configuration: `additional_config`, which every process of a server has."""

from __future__ import annotations

from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.serving.settings import KEY, ServingSettings, read_settings


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
