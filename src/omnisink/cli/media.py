"""What the verbs that take a clip share: their arguments, and what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli.output import working
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.methods.modality import ModalityCount
    from omnisink.models.adapters.prompt import Encoded
    from omnisink.models.loaded import Loaded

ChoicesOption = Annotated[
    list[str] | None,
    typer.Option("--choices", metavar="A B C", help="Possible answers; the model answers with a letter."),
]
AudioOption = Annotated[
    str | None, typer.Option("--audio", metavar="FILE", help="Sound from another file, not the video's own.")
]
NoAudioOption = Annotated[bool, typer.Option("--no-audio", help="Leave the sound of the video out.")]
FramesOption = Annotated[
    int | None, typer.Option("--frames", min=1, help="So many frames, evenly spaced. [default: the family's own rule]")
]


def gather_choices(arguments: list[str]) -> list[str]:
    """Let ``--choices`` take all words up to the next option: ``--choices a b`` is ``--choices a --choices b``."""
    out: list[str] = []
    inside = False
    for word in arguments:
        if word == "--choices":
            inside = True
        elif inside and not word.startswith("-"):
            out += ["--choices", word]
        else:
            inside = False
            out.append(word)
    return out


def split_words(words: list[str]) -> tuple[str | None, str]:
    """Tell ``FILE QUESTION`` from ``QUESTION``.

    Raises
    ------
    OmnisinkError
        If there are more words than two.
    """
    if len(words) > 2:
        raise OmnisinkError(
            f"expected a file and a question, got {len(words)} arguments: put the question in quotation marks"
        )
    return (None, words[0]) if len(words) == 1 else (words[0], words[1])


def encode(
    loaded: Loaded,
    question: str,
    *,
    file: str | None,
    audio: str | None,
    no_audio: bool,
    frames: int | None,
    choices: list[str] | None,
    system: str | None,
) -> Encoded:
    """Turn a question about a file into model inputs, with a spinner.

    Raises
    ------
    OmnisinkError
        If options contradict each other, or the file cannot be used.
    """
    if audio is not None and no_audio:
        raise OmnisinkError("--audio and --no-audio exclude each other")
    with working(f"reading {file or audio}"):
        from omnisink.media import Uniform
        from omnisink.media.kind import kind_of

        asked: dict[str, Any] = {"choices": choices or None, "system": system, "audio": audio}
        kind = None if file is None else kind_of(file)
        if kind == "audio" and audio is not None:
            raise OmnisinkError(f"{file} is a sound file, and --audio gives another")
        if kind is not None:
            asked[kind] = file
        if kind == "video" and no_audio:
            asked["audio"] = False
        if frames is not None:
            asked["frames"] = Uniform(frames)
        return loaded.inputs(question, **asked)


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
