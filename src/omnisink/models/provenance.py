"""Which weights and which versions a result was made with, for its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnisink.models.loaded import Loaded


def describe(loaded: Loaded) -> dict[str, Any]:
    """Say which weights ran and how, for a record."""
    return {
        "name": loaded.name,
        "weights": loaded.model.name_or_path,
        "source": loaded.source,
        "revision": loaded.revision,
        "sha256": loaded.sha256,
        "class": type(loaded.model).__name__,
        "device": str(loaded.model.device),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "attention": loaded.model.config._attn_implementation,
    }


def versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    import platform

    import torch
    import transformers

    from omnisink import __version__

    return {
        "omnisink": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
