"""The kind of a file, recognised by its content and not by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omnisink.errors import MediaError
from omnisink.media.files import open_media
from omnisink.media.pictures import frames_of_picture, look_at_picture
from omnisink.media.streams import audio_stream, moving_pictures, video_stream

Kind = Literal["video", "audio", "image"]


@dataclass(frozen=True)
class Contents:
    """The kinds of content that a file can be asked for.

    Attributes
    ----------
    picture : {"video", "image"} or None
        A moving picture, a still one, or none; the cover of a song does not count.
    sound : bool
        Whether it has a track of sound.
    """

    picture: Literal["video", "image"] | None
    sound: bool


def contents_of(path: str | Path) -> Contents:
    """Find out what a file holds; only what distinguishes the formats is decoded.

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


def check_streams(path: str | Path, *, video: bool, sound: bool) -> tuple[int, int]:
    """Refuse a file that lacks what is wanted of it, as far as its head says; nothing is decoded.

    Parameters
    ----------
    path : str or Path
        A local file.
    video, sound : bool
        The kinds that are wanted.

    Returns
    -------
    tuple of int
        Height and width of the picture in pixels, as stored; (0, 0) where none is wanted.

    Raises
    ------
    MediaError
        If the file is not media, lacks the picture or sound that is wanted, cannot be decoded, or is beyond a limit.
    """
    frames, size = look_at_picture(path)
    if frames:
        if sound:
            raise MediaError(f"{path}: has no sound")
        return size
    with open_media(path, None) as container:
        shown = video_stream(path, container).codec_context if video else None
        if sound:
            audio_stream(path, container)
        return (shown.height, shown.width) if shown is not None else (0, 0)


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
