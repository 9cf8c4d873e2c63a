"""Arguments of the commands that take a clip, and how they are read."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli.output import note, working
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.methods.modality import ModalityCount

ChoicesOption = Annotated[
    list[str] | None,
    typer.Option("--choices", metavar="A B C", help="Possible answers; the model answers with a letter."),
]
AudioOption = Annotated[
    str | None, typer.Option("--audio", metavar="FILE", help="Sound from another file, not the video's own.")
]
NoAudioOption = Annotated[bool, typer.Option("--no-audio", help="Leave the sound of the video out.")]
FramesOption = Annotated[
    int | None,
    typer.Option("--frames", min=1, help="Number of frames, evenly spaced. [default: the family's own rule]"),
]
SystemOption = Annotated[str | None, typer.Option(metavar="TEXT", help="System message. [default: the family's own]")]


@dataclass(frozen=True)
class MediaOptions:
    """What of a question's files is given to the model, and what stands before the question."""

    audio: AudioOption = None
    no_audio: NoAudioOption = False
    frames: FramesOption = None
    system: SystemOption = None


#: The group with nothing said.
MEDIA = MediaOptions()

#: Endings by which a word is a file even where there is no such file.
SUFFIXES = {
    *(
        "3gp",
        "avi",
        "flv",
        "m2ts",
        "m4v",
        "mka",
        "mkv",
        "mov",
        "mp4",
        "mpeg",
        "mpg",
        "mts",
        "ogv",
        "ts",
        "vob",
        "webm",
    ),
    *("wmv", "aac", "aif", "aiff", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma"),
    *("avif", "bmp", "gif", "heic", "heif", "jpeg", "jpg", "png", "tif", "tiff", "webp"),
}
_OPTION = re.compile(r"--?[^\W\d]|--$|-$")


def gather_choices(arguments: list[str]) -> list[str]:
    """Let ``--choices`` take all words up to the next option: ``--choices a b`` is ``--choices a --choices b``.

    A word that begins with a minus sign but no letter after it, such as a negative number, is a choice too.
    """
    out: list[str] = []
    inside = False
    for word, following in zip_longest(arguments, arguments[1:]):
        if word == "--choices":
            inside = True
            if following is None or _OPTION.match(following):
                out.append(word)  # The parser will say that it lacks a value.
        elif word.startswith("--choices="):
            inside = True
            out.append(word)
        elif inside and not _OPTION.match(word):
            out.append(f"--choices={word}")
        else:
            inside = False
            out.append(word)
    return out


def split_words(words: Sequence[str], choices: Sequence[str] | None = None) -> tuple[str | None, str]:
    """Tell ``FILE QUESTION`` from ``QUESTION``.

    Raises
    ------
    OmnisinkError
        If there is no question, more words than two, or a file where a question belongs.
    """
    swallowed = "; --choices takes all words after it, so the question comes before it" if choices else ""
    if not words:
        raise OmnisinkError(f"Missing argument: there is no question{swallowed}")
    if len(words) > 2:
        raise OmnisinkError(
            f"expected a file and a question, got {len(words)} arguments: put the question in quotation marks"
        )
    files = [word for word in (choices or ()) if is_file(word)]
    if files and len(words) == 1 and len(files) < len(choices or ()):
        raise OmnisinkError(f"{files[0]} is a file among the choices; the file comes first, then the question")
    if len(words) == 2 and not words[0].strip():
        raise OmnisinkError("the name of the file is empty; for a question without a file, give only the question")
    if len(words) == 1:
        if is_file(words[0]):
            raise OmnisinkError(
                f'{words[0]} is a file, and there is no question about it: say `ask {words[0]} "QUESTION"`{swallowed}'
            )
        return None, words[0]
    if is_file(words[1]):
        raise OmnisinkError(
            f"{words[0]} and {words[1]} are two files and no question: a sound beside a video is given with --audio"
            if is_file(words[0])
            else f"{words[1]} is a file and comes before the question"
        )
    return words[0], words[1]


def is_file(word: str) -> bool:
    """Tell whether a word is a path: something is there, or it ends as media files do, in small or large letters."""
    return word != "-" and (os.path.exists(word) or PurePath(word.strip()).suffix[1:].lower() in SUFFIXES)


def check_media(file: str | None, given: MediaOptions = MEDIA) -> tuple[dict[str, Any], set[Any]]:
    """Look at the files of a question, before a model is loaded.

    Parameters
    ----------
    file : str or None
        What the question is about.
    given : MediaOptions
        What the options say.

    Returns
    -------
    dict and set of str
        Arguments of `Loaded.inputs`, and the modalities the model must have.

    Raises
    ------
    OmnisinkError
        If options contradict each other.
    MediaError
        If a file does not exist, or is not a media file.
    """
    audio = given.audio
    if audio is not None and given.no_audio:
        raise OmnisinkError("--audio and --no-audio exclude each other")
    if file is None and audio is None:
        return {}, set()
    with working(f"reading {file or audio}"):
        from omnisink.media import Uniform
        from omnisink.media.kind import check_streams, kind_of

        kind = None if file is None else kind_of(file)
        if file is not None and kind != "image":
            check_streams(file, video=kind == "video", sound=kind == "audio")
        if audio is not None:
            check_streams(audio, video=False, sound=True)
    if kind == "audio" and audio is not None:
        raise OmnisinkError(f"{file} is a sound file, and --audio gives another")
    asked: dict[str, Any] = {"audio": audio}
    if kind is not None:
        asked[kind] = file
    if kind == "video" and given.no_audio:
        asked["audio"] = False
    if given.frames is not None:
        asked["frames"] = Uniform(given.frames)
    return asked, ({"audio"} if audio is not None else set()) | ({kind} if kind is not None else set())


def check_heard(model: str, asked: dict[str, Any]) -> None:
    """Refuse a video without sound where the model would be given its sound, before the model is loaded.

    Parameters
    ----------
    model : str
        Value of ``--model``.
    asked : dict
        Result of `check_media`.

    Raises
    ------
    MediaError
        Says how the sound is left out.
    """
    video = asked.get("video")
    if video is None or asked.get("audio") is not None:
        return
    from omnisink.errors import MediaError
    from omnisink.media.kind import contents_of
    from omnisink.models.facts import known_adapter

    family = known_adapter(model)
    if family is not None and "audio" in family.modalities and not contents_of(video).sound:
        raise MediaError(f"{video}: has no sound, and {model} hears: leave the sound out with --no-audio")


@contextmanager
def warnings_noted(several: bool = False) -> Iterator[None]:
    """Say what omnisink warns of in the block; Python's own warnings are off on the command line.

    With `several`, where many questions are asked, that is one note: the first warning, and how many others there are.
    """
    from omnisink.models.context import LongPromptWarning, UnheardWarning

    kinds = (LongPromptWarning, UnheardWarning)
    with warnings.catch_warnings(record=True) as caught:
        for kind in kinds:
            warnings.simplefilter("always", kind)
        yield
    messages = list(dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, kinds)))
    if several and messages[1:]:
        messages = [f"{messages[0]} ({len(messages) - 1:,} more warnings of this kind)"]
    for line in messages:
        note(line)


def summary(counts: list[ModalityCount]) -> str:
    """Write sinks by modality as a small table."""
    rows = [("modality", "tokens", "sinks", "layers")]
    for count in counts:
        layers = f"{count.layers[0]}-{count.layers[-1]}" if count.layers else ""
        where = (
            f" (position{'s' if len(count.sinks) > 1 else ''} {', '.join(map(str, count.sinks))})"
            if count.sinks
            else ""
        )
        rows.append((count.modality, str(count.tokens), f"{len(count.sinks)}{where}", layers))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
