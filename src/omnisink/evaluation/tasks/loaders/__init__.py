"""Loaders of annotations: one for all flat lists, and one for every format that is not a flat list."""

from __future__ import annotations

from omnisink.evaluation.tasks.loaders import folder, listed, lvbench, music_avqa, worldsense
from omnisink.evaluation.tasks.rows import Loader

#: By the names that a task's file uses.
LOADERS: dict[str, Loader] = {
    "listed": listed.load_listed,
    "folder": folder.load_folder,
    "worldsense": worldsense.load_worldsense,
    "lvbench": lvbench.load_lvbench,
    "music_avqa": music_avqa.load_music_avqa,
}
#: What each can be told in a task's file, under ``fields``.
FIELDS: dict[str, set[str]] = {
    "listed": listed.FIELDS,
    "folder": folder.FIELDS,
    "worldsense": worldsense.FIELDS,
    "lvbench": lvbench.FIELDS,
    "music_avqa": music_avqa.FIELDS,
}
