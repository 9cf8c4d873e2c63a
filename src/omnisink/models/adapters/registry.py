"""The list of adapters, and the choice of one for a model."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.models.adapters.base import Adapter
from omnisink.models.adapters.imagebind_llm import ImageBindLLM
from omnisink.models.adapters.llava_onevision import LlavaOneVision
from omnisink.models.adapters.phi4_multimodal import Phi4Multimodal
from omnisink.models.adapters.qwen2_5_omni import Qwen25Omni
from omnisink.models.adapters.qwen2_5_vl import Qwen25VL
from omnisink.models.adapters.qwen3_omni import Qwen3Omni
from omnisink.models.adapters.qwen3_vl import Qwen3VL
from omnisink.models.adapters.text import TextOnly
from omnisink.models.adapters.video_llama2 import VideoLLaMA2
from omnisink.models.adapters.video_llama2_av import VideoLLaMA2AV
from omnisink.models.adapters.video_salmonn2 import VideoSALMONN2
from omnisink.models.adapters.video_salmonn2_plus import VideoSALMONN2Plus
from omnisink.models.adapters.videollama3 import VideoLLaMA3

#: Entry points of this group name a subclass of `Adapter`.
GROUP = "omnisink.adapters"

#: The adapters of omnisink. Each says in `Adapter.model_types` which models it is for.
ADAPTERS: tuple[type[Adapter], ...] = (
    Qwen25Omni,
    Qwen3Omni,
    Qwen25VL,
    Qwen3VL,
    VideoLLaMA3,
    LlavaOneVision,
    Phi4Multimodal,
    VideoLLaMA2,
    VideoLLaMA2AV,
    ImageBindLLM,
    VideoSALMONN2,
    VideoSALMONN2Plus,
)


def adapter_of(model_type: str, *, with_processor: bool) -> Adapter:
    """Return the adapter of a model: that of its family, or `TextOnly` for a family that has none.

    Parameters
    ----------
    model_type : str
        ``config.model_type``.
    with_processor : bool
        Whether a processor was saved with the model. Without one most models take text only.

    Returns
    -------
    Adapter
        For an unknown family, an adapter that takes text and explains why it refuses media.
    """
    found = _from_outside(model_type)  # Such a model may have a processor of another kind, or need none.
    known = found or find_adapter(model_type)
    if found is None and not with_processor and (known is None or known.has_processor_file):
        return TextOnly()
    return known or TextOnly(unknown=model_type)


def find_adapter(model_type: str) -> Adapter | None:
    """Return the adapter for a model type, or None. Those of other packages come first.

    Raises
    ------
    OmnisinkError
        If an entry point cannot be loaded, or is not an adapter.
    """
    if (found := _from_outside(model_type)) is not None:
        return found
    return next((adapter() for adapter in ADAPTERS if model_type in adapter.model_types), None)


def own_system(adapter: Adapter, message: str | None) -> str | None:
    """Return a system message for a model, or None, for its family's own, where it is that of another family.

    Parameters
    ----------
    adapter : Adapter
        Of the model that is asked.
    message : str or None
        What a protocol asks for.

    Returns
    -------
    str or None
        The message, or None.
    """
    owners = [known for known in ADAPTERS if message and known.default_system == message]
    return None if len(owners) == 1 and not isinstance(adapter, owners[0]) else message


def _from_outside(model_type: str) -> Adapter | None:
    """Return the adapter of another package, or None."""
    for point in entry_points(group=GROUP):
        try:
            found: Any = point.load()
        except Exception as error:
            raise OmnisinkError(f"the adapter {point.name} ({point.value}) cannot be loaded: {error}") from error
        if not (isinstance(found, type) and issubclass(found, Adapter)):
            raise OmnisinkError(f"the adapter {point.name} ({point.value}) is not a subclass of Adapter")
        if model_type in found.model_types:
            return found()
    return None
