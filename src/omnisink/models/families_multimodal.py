"""Multimodal families."""

from __future__ import annotations

from omnisink.models.family import Family

MULTIMODAL: list[Family] = []
