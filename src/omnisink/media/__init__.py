"""Video, sound and image files to frames and samples."""

from omnisink.errors import MediaError
from omnisink.media.choice import AtTimes, ByFps, FrameChoice, Uniform
from omnisink.media.clip import Clip, MediaRecord
from omnisink.media.read import read_audio, read_clip, read_image

__all__ = [
    "AtTimes",
    "ByFps",
    "Clip",
    "FrameChoice",
    "MediaError",
    "MediaRecord",
    "Uniform",
    "read_audio",
    "read_clip",
    "read_image",
]
