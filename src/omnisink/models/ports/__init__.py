"""Models that transformers lacks, built of classes that it has.

`PORTS` names, for each ``model_type`` of ``config.json``, the function that loads a folder. Such a model
is asked through an adapter as any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

#: The module and the function that load each model type; nothing of them is imported before a model needs it.
PORTS: dict[str, tuple[str, str]] = {
    "imagebind_llm": ("omnisink.models.ports.imagebind_llm", "load_imagebind_llm"),
    "videollama2": ("omnisink.models.ports.video_llama2", "load_video_llama2"),
    "videollama2_mistral": ("omnisink.models.ports.video_llama2", "load_video_llama2"),
    "videollama2_qwen2": ("omnisink.models.ports.video_llama2", "load_video_llama2"),
}

#: From a name for messages, a folder, the options of `from_pretrained`, and whether the network may be used, to the
#: model, the loading report of transformers, the tokenizer and the processor.
Port = Callable[[str, Path, dict[str, Any], bool], tuple[Any, dict[str, Any], Any, Any]]


def find_port(folder: Path) -> Port | None:
    """Return what loads the checkpoint in a folder, if it is one that transformers has no class for; else None."""
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if not isinstance(model_type, str) or model_type not in PORTS:
        return None
    module, function = PORTS[model_type]
    return getattr(import_module(module), function)  # type: ignore[no-any-return]
