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
        One, of the name ``omnisink``. The chat class is taken unless lmms-eval is given ``--force_simple``.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    here = "omnisink.integrations.lmms.model"
    return [
        ModelManifest("omnisink", chat_class_path=f"{here}.OmnisinkChat", simple_class_path=f"{here}.OmnisinkSimple")
    ]


def tasks_folder() -> Path:
    """Return the folder of our tasks, for ``--include_path``."""
    return Path(__file__).parent / "tasks"
