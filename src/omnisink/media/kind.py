"""What kind of file one is, told by its content and not by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from omnisink.media.files import open_media

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
        A sound file with a cover picture is sound; an animated image is a video.

    Raises
    ------
    MediaError
        If it is none of them, or cannot be read.
    """
    with open_media(path, None) as container:
        name = container.format.name
        if name == "image2" or name.endswith("_pipe"):
            return "image"
        moving = [s for s in container.streams.video if not s.disposition & type(s.disposition).attached_pic]
        return "video" if moving else "audio"
