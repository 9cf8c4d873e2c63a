"""How a family of models is asked about media, one file each. A new adapter derives from `Adapter`."""

from omnisink.models.adapters.base import Adapter, pictures

__all__ = ["Adapter", "pictures"]
