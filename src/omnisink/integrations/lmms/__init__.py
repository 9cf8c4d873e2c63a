"""omnisink inside lmms-eval: its models, and the tasks AVHBench, Daily-Omni and SynthAV.

lmms-eval finds the models through the entry point group ``lmms_eval.models``, and the tasks through
``--include_path "$(python -m omnisink.integrations.lmms)"``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def manifests() -> list[Any]:
    """Return what lmms-eval's registry wants to know of our models.

    Nothing heavy is imported: lmms-eval calls this whenever it starts, whatever model is asked for, and an error here
    would keep it from finding the models of other packages.

    Returns
    -------
    list of lmms_eval.models.registry_v2.ModelManifest
        ``omnisink``, and ``omnisink_around`` for models of lmms-eval's own. The chat class is taken unless lmms-eval
        is given ``--force_simple``.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest(name, chat_class_path=f"{classes}Chat", simple_class_path=f"{classes}Simple")
        for name, classes in (
            ("omnisink", f"{__name__}.model.Omnisink"),
            ("omnisink_around", f"{__name__}.around.OmnisinkAround"),
        )
    ]


def tasks_folder() -> Path:
    """Return the folder of our tasks, for ``--include_path``."""
    return Path(__file__).parent / "tasks"
