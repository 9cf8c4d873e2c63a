"""Adapters: how each family of models is asked about media, one file each. All derive from `Adapter`."""

from omnisink.models.adapters.base import Adapter, pictures

__all__ = ["Adapter", "pictures"]
