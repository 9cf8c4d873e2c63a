"""What kind of file one is, told by its content and not by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from omnisink.media.files import open_media
from omnisink.media.pictures import frames_of_picture
from omnisink.media.streams import moving_pictures

Kind = Literal["video", "audio", "image"]


def kind_of(path: str | Path) -> Kind:
    """Tell a video, a sound file and a still image apart.

    Parameters
    ----------
    path : str or Path
        A local file.

    Returns
    -------
    {"video", "audio", "image"}
        A sound file with a cover picture is sound; an animated image is a video, and one of a single frame is a
        picture.

    Raises
    ------
    MediaError
        If it is none of them, or cannot be read.
    """
    frames = frames_of_picture(path)
    if frames:
        return "image" if frames == 1 else "video"
    with open_media(path, None) as container:
        return "video" if moving_pictures(container) else "audio"
