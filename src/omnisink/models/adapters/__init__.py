"""Adapters: how each family of models is asked about media, one file each. All derive from `Adapter`."""

from omnisink.models.adapters.base import Adapter, pictures
from omnisink.models.adapters.embedding import embed_rows

__all__ = ["Adapter", "embed_rows", "pictures"]
