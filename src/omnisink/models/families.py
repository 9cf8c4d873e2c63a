"""The families omnisink is verified on, each with a tiny model that has a planted sink."""

from __future__ import annotations

from omnisink.models.families_multimodal import MULTIMODAL
from omnisink.models.families_text import TEXT
from omnisink.models.family import Family

#: Every family by name. The builders import transformers when they are called; listing does not.
FAMILIES: dict[str, Family] = {family.name: family for family in (*TEXT, *MULTIMODAL)}
