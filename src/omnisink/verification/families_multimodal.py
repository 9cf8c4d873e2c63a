"""Multimodal families: those that see, those that hear, and those that do both."""

from __future__ import annotations

from omnisink.verification.families_audio import AUDIO_FAMILIES
from omnisink.verification.families_omni import OMNI
from omnisink.verification.families_vision import VISION
from omnisink.verification.family import Family

MULTIMODAL: list[Family] = [*OMNI, *VISION, *AUDIO_FAMILIES]
