"""Which adapter a model has."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.text import TextAlone

#: Entry points of this group name a subclass of `Adapter`.
GROUP = "omnisink.adapters"

_HERE = "omnisink.models.adapters"
#: Model types, and where their adapter is; a file is imported when its model is loaded.
BUILT_IN: dict[str, str] = {
    "qwen2_5_omni_thinker": "qwen2_5_omni:Qwen25Omni",
    "qwen3_omni_moe_thinker": "qwen3_omni:Qwen3Omni",
    "qwen2_5_vl": "qwen2_5_vl:Qwen25VL",
    "qwen3_vl": "qwen3_vl:Qwen3VL",
    "qwen3_vl_moe": "qwen3_vl:Qwen3VL",
    "video_llama_3": "videollama3:VideoLLaMA3",
    "llava_onevision": "llava_onevision:LlavaOneVision",
    "phi4_multimodal": "phi4_multimodal:Phi4Multimodal",
}


def adapter_of(model_type: str, *, with_processor: bool) -> Adapter:
    """Return the adapter of a model: its family's, or one for text alone where there is none.

    Parameters
    ----------
    model_type : str
        ``config.model_type``.
    with_processor : bool
        Whether a processor was saved with the model. Without one it is asked about text alone.

    Returns
    -------
    Adapter
        The adapter for text alone of a family that is not known says so when it is asked about media.
    """
    found = _from_outside(model_type)  # Such a model may have a processor of another kind, or need none.
    if found is None and not with_processor:
        return TextAlone()
    return found or find_adapter(model_type) or TextAlone(unknown=model_type)


def find_adapter(model_type: str) -> Adapter | None:
    """Return the adapter for a model type, or None. Those of other packages come first.

    Raises
    ------
    OmnisinkError
        If an entry point cannot be loaded, or is no adapter.
    """
    if (found := _from_outside(model_type)) is not None:
        return found
    if model_type not in BUILT_IN:
        return None
    module, name = BUILT_IN[model_type].split(":")
    adapter: Adapter = getattr(import_module(f"{_HERE}.{module}"), name)()
    return adapter


def _from_outside(model_type: str) -> Adapter | None:
    """Return the adapter of another package, or None."""
    for point in entry_points(group=GROUP):
        try:
            found: Any = point.load()
        except Exception as error:
            raise OmnisinkError(f"the adapter {point.name} ({point.value}) cannot be loaded: {error}") from error
        if not (isinstance(found, type) and issubclass(found, Adapter)):
            raise OmnisinkError(f"the adapter {point.name} ({point.value}) is no subclass of Adapter")
        if model_type in found.model_types:
            return found()
    return None
