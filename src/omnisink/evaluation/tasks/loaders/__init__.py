"""Loaders: one for flat lists, one for every format that is no flat list, and those that make their questions."""

from __future__ import annotations

from omnisink.evaluation.tasks.loaders import folder, listed, lvbench, music_avqa, worldsense
from omnisink.evaluation.tasks.loaders.base import Loader
from omnisink.evaluation.tasks.loaders.items import ItemLoader
from omnisink.evaluation.tasks.loaders.synthav import SynthAVLoader
from omnisink.evaluation.tasks.long_context.loader import LongContextLoader

#: By the names that a task's file uses.
LOADERS: dict[str, Loader] = {
    "listed": Loader(listed.load_listed, listed.FIELDS),
    "folder": Loader(folder.load_folder, folder.FIELDS),
    "worldsense": Loader(worldsense.load_worldsense),
    "lvbench": Loader(lvbench.load_lvbench, text_fields=lvbench.TEXT_FIELDS),
    "music_avqa": Loader(music_avqa.load_music_avqa, music_avqa.FIELDS),
    "synthav": SynthAVLoader(listed.load_listed, listed.FIELDS),
    "long_context": LongContextLoader(
        fields=frozenset({"generator", "lengths", "seeds"}),
        text_fields=frozenset({"context"}),
        settings=frozenset({"lengths"}),
        needs_model=True,
    ),
    "items": ItemLoader(fields=frozenset({"path"})),
}
