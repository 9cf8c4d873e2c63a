"""What kind of file one is, told by its content and not by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omnisink.media.files import open_media
from omnisink.media.pictures import frames_of_picture
from omnisink.media.streams import moving_pictures

Kind = Literal["video", "audio", "image"]


@dataclass(frozen=True)
class Contents:
    """What a file can be asked for.

    Attributes
    ----------
    picture : {"video", "image"} or None
        A moving picture, a still one, or none; the cover of a song is none.
    sound : bool
        Whether it has a track of sound.
    """

    picture: Literal["video", "image"] | None
    sound: bool


def contents_of(path: str | Path) -> Contents:
    """Look what a file holds; nothing is decoded but what tells the formats apart.

    Raises
    ------
    MediaError
        If it is neither media nor a picture, or cannot be read.
    """
    frames = frames_of_picture(path)
    if frames:
        return Contents("image" if frames == 1 else "video", sound=False)
    with open_media(path, None) as container:
        return Contents("video" if moving_pictures(container) else None, sound=bool(container.streams.audio))


def kind_of(path: str | Path) -> Kind:
    """Tell a video, a sound file and a still image apart.

    Parameters
    ----------
    path : str or Path
        A local file.

    Returns
    -------
    {"video", "audio", "image"}
        A sound file with a cover picture is sound; an animated image is a video, one of a single frame a picture.

    Raises
    ------
    MediaError
        If it is none of them, or cannot be read.
    """
    return contents_of(path).picture or "audio"
