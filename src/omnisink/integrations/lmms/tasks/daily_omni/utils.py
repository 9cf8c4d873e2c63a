"""The questions of Daily-Omni, by protocol; the folder is what OMNISINK_DATA_DAILY_OMNI says."""

from typing import Any

from omnisink.integrations.lmms.questions import load


def outro(_: Any) -> Any:
    """Return the questions as OutRo's release asks them, options without letters."""
    return load("daily-omni", "outro")


def official(_: Any) -> Any:
    """Return the questions as Daily-Omni's own test asks them."""
    return load("daily-omni", "official")


def lettered(_: Any) -> Any:
    """Return the questions as we would ask them."""
    return load("daily-omni", "lettered")
