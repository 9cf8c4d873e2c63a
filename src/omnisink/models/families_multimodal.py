"""Multimodal families: those that see, those that hear, and those that do both."""

from __future__ import annotations

from omnisink.models.families_audio import AUDIO_FAMILIES
from omnisink.models.families_omni import OMNI
from omnisink.models.families_vision import VISION
from omnisink.models.family import Family

MULTIMODAL: list[Family] = [*OMNI, *VISION, *AUDIO_FAMILIES]
