"""The families omnisink is verified on, each with a tiny model that has a planted sink."""

from __future__ import annotations

from omnisink.verification.families_multimodal import MULTIMODAL
from omnisink.verification.families_text import TEXT
from omnisink.verification.family import Family

#: Every family by name. The builders import transformers when they are called; listing does not.
FAMILIES: dict[str, Family] = {family.name: family for family in (*TEXT, *MULTIMODAL)}
