"""Vision towers that a checkpoint names by their own repository: CLIP and SigLIP, as the LLaVA family stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.models.hub import find_cached, require


def find_tower(name: str, folder: Path, *, download: bool) -> Path:
    """Return the folder with a tower's ``config.json`` and ``preprocessor_config.json``.

    Parameters
    ----------
    name : str
        ``mm_vision_tower`` of the checkpoint: a folder inside it or anywhere, or a repository on the Hub.
    folder : Path
        The checkpoint.
    download : bool
        Use the network.

    Raises
    ------
    OmnisinkError
        If it is not on this machine.
    """
    for place in (folder / name, Path(name).expanduser()):
        if (place / "config.json").is_file():
            return place
    found = require(name, None, download=True, with_code=False) if download else find_cached(name, None)
    if found is None:
        raise OmnisinkError(
            f"the vision tower {name} is neither a folder nor in the local Hub cache. Its config.json says how it is "
            f"built: fetch it with: hf download {name} config.json preprocessor_config.json, or with download=True"
        )
    return found


def read_tower(name: str, place: Path) -> tuple[Any, Any]:
    """Return the configuration and the image processor of a tower.

    Parameters
    ----------
    name : str
        Its name, which says the kind, as in the released code.
    place : Path
        Result of `find_tower`.

    Returns
    -------
    tuple of PreTrainedConfig, ImageProcessor
        The processor is the one on Pillow: the released models were trained with its way to resize.

    Raises
    ------
    OmnisinkError
        If it is neither CLIP nor SigLIP.
    """
    import transformers

    kind = next((kind for kind in ("siglip", "clip") if kind in name.lower()), None)
    if kind is None:
        raise OmnisinkError(f"the vision tower {name} is neither CLIP nor SigLIP, by its name")
    family = {"clip": "CLIP", "siglip": "Siglip"}[kind]
    config = getattr(transformers, f"{family}VisionConfig").from_pretrained(place)
    if kind == "siglip":
        config.vision_use_head = False  # Only the patches are used.
    # Before transformers had two of them, the one without a suffix was on Pillow.
    processor = getattr(transformers, f"{family}ImageProcessorPil", None) or getattr(
        transformers, f"{family}ImageProcessor"
    )
    return config, processor.from_pretrained(place)


def build_tower(config: Any) -> Any:
    """Return a tower without weights of its own: `CLIPVisionModel` or `SiglipVisionModel`."""
    from transformers import CLIPVisionModel, SiglipVisionModel

    return (CLIPVisionModel if config.model_type.startswith("clip") else SiglipVisionModel)(config)


def tower_prefix(config: Any) -> str:
    """Return what comes before the names of a tower's weights in this version of transformers."""
    with torch.device("meta"):
        return "vision_model." if hasattr(build_tower(config), "vision_model") else ""


def patch_features(tower: Any, pixels: Tensor, layer: int) -> Tensor:
    """Return the patches' hidden states of one layer.

    Parameters
    ----------
    tower : PreTrainedModel
        Result of `build_tower`.
    pixels : Tensor
        (N, 3, H, W).
    layer : int
        Index into the hidden states, ``-2`` being what enters the last layer.

    Returns
    -------
    Tensor
        (N, P, D), P patches row by row; CLIP's class token is left out.
    """
    hidden: Tensor = tower(pixels, output_hidden_states=True).hidden_states[layer]
    return hidden[:, 1:] if tower.config.model_type.startswith("clip") else hidden
