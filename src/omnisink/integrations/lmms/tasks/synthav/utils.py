"""The questions of SynthAV; the folder, made by `omnisink synthav --out DIR`, is what OMNISINK_DATA_SYNTHAV says."""

from typing import Any

from omnisink.integrations.lmms.questions import load


def strict(_: Any) -> Any:
    """Return the questions of the folder."""
    return load("synthav", "strict")
