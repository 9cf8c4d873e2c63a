"""The rotary embeddings that a GGUF file asks for, in transformers' terms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from omnisink.errors import OmnisinkError
from omnisink.models.gguf.quantization import read_tensor

if TYPE_CHECKING:
    from omnisink.models.gguf.architectures import Settings

#: The tensor of Llama 3.1 and later: what each frequency is divided by.
DIVISORS = "rope_freqs.weight"
#: What Llama 3.1 to 3.3 have beside the factor. A file keeps the divisors that follow from it, and not these numbers.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_parameters(settings: Settings, width: int, *, local: bool) -> dict[str, Any]:
    """Return what transformers calls ``rope_parameters``.

    Parameters
    ----------
    settings : Settings
        Those of the file.
    width : int
        Dimensions of a head.
    local : bool
        Whether layers with a sliding window have frequencies of their own.

    Returns
    -------
    dict
        For a configuration.

    Raises
    ------
    OmnisinkError
        If the frequencies are scaled in a way that transformers cannot be given.
    """
    whole: dict[str, Any] = {"rope_type": "default"}
    if settings.get("rope.freq_base") is not None:
        whole["rope_theta"] = settings.number("rope.freq_base")
    kind = settings.get("rope.scaling.type")
    if kind in ("linear", "yarn"):
        whole |= {"rope_type": kind, "factor": settings.number("rope.scaling.factor")}
        if kind == "yarn":
            whole["original_max_position_embeddings"] = settings.count("rope.scaling.original_context_length")
    elif kind not in (None, "none"):
        raise settings.wrong("rope.scaling.type", kind, "none, linear or yarn")
    if DIVISORS in settings.header.tensors:
        whole |= _llama3(settings, width, whole.get("rope_theta", 10000.0))
    if not local:
        return whole
    near: dict[str, Any] = {"rope_type": "default"}
    if settings.get("rope.freq_base_swa") is not None:
        near["rope_theta"] = settings.number("rope.freq_base_swa")
    return {"full_attention": whole, "sliding_attention": near}


def _llama3(settings: Settings, width: int, theta: float) -> dict[str, Any]:
    """Return the settings that the divisors of a file follow from, which are compared with all of them."""
    stored = read_tensor(settings.header, DIVISORS).flatten()
    factor = float(stored.max())
    low, high, length = _LLAMA3.values()
    turns = length / (2 * math.pi * theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width))
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != expected.shape or not torch.allclose(stored.double(), expected, rtol=1e-4):
        raise OmnisinkError(
            f"{settings.header.path} cannot be loaded: {DIVISORS} scales the rotary frequencies in another way than "
            "Llama 3.1 does, which transformers cannot be given"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
