"""Models that transformers lacks, built of classes that it has.

`PORTS` names, for each model type, the function that loads a folder. Such a model is asked through an adapter as any
other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

#: The module and the function that load each model type; nothing of them is imported before a model needs it.
PORTS: dict[str, tuple[str, str]] = {
    "imagebind_llm": ("omnisink.models.ports.imagebind_llm", "load_imagebind_llm"),
    "videollama2": ("omnisink.models.ports.video_llama2", "load_video_llama2"),
    "videollama2_mistral": ("omnisink.models.ports.video_llama2", "load_video_llama2"),
    "videollama2_qwen2": ("omnisink.models.ports.video_llama2", "load_video_llama2"),
    "video_salmonn_2": ("omnisink.models.ports.video_salmonn2", "load_video_salmonn2"),
    "video_salmonn2_plus": ("omnisink.models.ports.video_salmonn2_plus", "load_video_salmonn2_plus"),
}

#: Ports whose checkpoints say the ``model_type`` of the model that they were made from: that type, and the key of
#: ``config.json`` that only the port's have.
LENT_TYPES: dict[str, tuple[str, str]] = {"video_salmonn2_plus": ("qwen2_5_vl", "audio_config")}

#: From a name for messages, a folder, the options of `from_pretrained`, and whether the network may be used, to the
#: model, the loading report of transformers, the tokenizer and the processor.
Port = Callable[[str, Path, dict[str, Any], bool], tuple[Any, dict[str, Any], Any, Any]]


def known_type(config: Mapping[str, Any]) -> str:
    """Return the model type that a ``config.json`` is known by here; empty if it says none.

    Parameters
    ----------
    config : mapping
        What is in the file.

    Returns
    -------
    str
        Its ``model_type``, or the port's where that type is only lent.
    """
    said = config.get("model_type")
    for port, (lent, key) in LENT_TYPES.items():
        if said == lent and key in config:
            return port
    return said if isinstance(said, str) else ""


def find_port(folder: Path) -> Port | None:
    """Return what loads the checkpoint in a folder, if it is one that transformers has no class for; else None."""
    found = PORTS.get(known_type(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    if found is None:
        return None
    module, function = found
    return getattr(import_module(module), function)  # type: ignore[no-any-return]
