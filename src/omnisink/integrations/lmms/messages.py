"""Chat messages as lmms-eval has them, and prompts as our adapters take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.paths import has_sound
from omnisink.media import FrameChoice
from omnisink.questions.prompt import Prompt

#: What is done with the sound of a video that no audio message comes with.
AUDIO = ("always", "if-there", "never")
_MEDIA = ("video", "image", "audio")
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".webp"}
_SOUNDS = {".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"}

Messages = Sequence[Mapping[str, Any]]


def messages_of(instance: Instance) -> list[dict[str, Any]]:
    """Write a question as messages.

    Parameters
    ----------
    instance : Instance
        The question.

    Returns
    -------
    list of dict
        With a system message where the protocol has one, and the media where it puts them. A reply that the answer is
        made to begin with is a last message of the assistant.

    Raises
    ------
    OmnisinkError
        If the video is to be shown without its sound, which messages cannot say.
    """
    if instance.video is not None and instance.audio is False:
        raise OmnisinkError(f"{instance.id}: messages of lmms-eval cannot say that a video is shown without its sound")
    media = [{"type": kind, "url": str(path)} for kind in _MEDIA if isinstance(path := getattr(instance, kind), Path)]
    said = [{"type": "text", "text": instance.text}]
    turns = [("user", said + media if instance.text_first else media + said)]
    if instance.system:
        turns.insert(0, ("system", [{"type": "text", "text": instance.system}]))
    if instance.reply:
        turns.append(("assistant", [{"type": "text", "text": instance.reply}]))
    return [{"role": role, "content": content} for role, content in turns]


def visual_message(visuals: Sequence[Any], text: str) -> list[dict[str, Any]]:
    """Write what a task gives to simple models, files and a text, as one message of the user."""
    content = [_visual(visual) for visual in visuals]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def prompt_of(
    messages: Messages,
    *,
    hears: bool,
    audio: str = "always",
    frames: FrameChoice | None = None,
    store: Callable[[Any], Path] | None = None,
) -> Prompt:
    """Put messages as the model's adapter takes them.

    Parameters
    ----------
    messages : sequence of mapping
        A message of the user, with one of the system before it and the beginning of the answer after it, or without.
    hears : bool
        Whether the model takes sound.
    audio : {"always", "if-there", "never"}
        Use of the sound of a video. ``"always"`` makes a video without sound an error.
    frames : FrameChoice, optional
        Choice of frames; None is the family's own rule.
    store : callable, optional
        Writes a picture to a file; None accepts only files.

    Returns
    -------
    Prompt
        The question.

    Raises
    ------
    OmnisinkError
        If the messages hold what an adapter cannot be given: several turns, two files of one kind, text on both sides
        of the media, a part of a video, or sound that is not in a file.
    """
    system, user, reply = _turns(messages)
    texts: list[str] = []
    found: dict[str, Path] = {}
    order = ""
    for part in user:
        kind = part.get("type")
        if kind == "text":
            texts.append(str(part["text"]))
            order += "t"
        elif kind in _MEDIA:
            if kind in found:
                raise OmnisinkError(f"the question has more than one {kind}; adapters take one of each kind")
            found[kind] = _file(kind, part, store)
            order += "m"
        else:
            raise OmnisinkError(f"the question has a part of the type {kind!r}: text, video, image or audio is known")
    if "tm" in order and "mt" in order:
        raise OmnisinkError("the question has text before and after its media; adapters put it on one side")
    video, sound = found.get("video"), found.get("audio")
    if sound is None and video is not None and hears and _heard(video, audio):
        sound = video
    return Prompt(
        "".join(texts),
        video=video,
        image=found.get("image"),
        sound=sound,
        system=system,
        frames=frames,
        text_first="tm" in order,
        reply=reply,
    )


def _turns(messages: Messages) -> tuple[str | None, list[Mapping[str, Any]], str]:
    """Return the system's text, the parts of the user's message, and what the answer begins with."""
    turns = [(str(m["role"]), m["content"]) for m in messages]
    system, reply = None, ""
    if turns and turns[0][0] == "system":
        system = _text(turns.pop(0)[1])
    if turns and turns[-1][0] == "assistant":
        reply = _text(turns.pop()[1])
    if [role for role, _ in turns] != ["user"]:
        said = ", ".join(str(m["role"]) for m in messages) or "none"
        raise OmnisinkError(f"omnisink answers one question of one turn; the messages are by: {said}")
    content = turns[0][1]
    return system, [{"type": "text", "text": content}] if isinstance(content, str) else list(content), reply


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if any(part.get("type") != "text" for part in content):
        raise OmnisinkError("media belong into the message of the user, not of the system or the assistant")
    return "".join(str(part["text"]) for part in content)


def _file(kind: str, part: Mapping[str, Any], store: Callable[[Any], Path] | None) -> Path:
    url = part.get("url")
    if part.get("start_time") is not None or part.get("end_time") is not None or isinstance(url, dict):
        raise OmnisinkError(f"a {kind} is taken as a whole file; a part of one, or one in memory, is not supported")
    if isinstance(url, str | Path):
        return Path(str(url).removeprefix("file://"))
    if kind == "image" and store is not None and hasattr(url, "save"):
        return store(url)
    raise OmnisinkError(f"a {kind} must be the path of a file, got {type(url).__name__}")


def _heard(video: Path, audio: str) -> bool:
    return audio == "always" or (audio == "if-there" and has_sound(video))


def _visual(visual: Any) -> dict[str, Any]:
    if isinstance(visual, str | Path):
        suffix = Path(visual).suffix.lower()
        kind = "image" if suffix in _IMAGES else "audio" if suffix in _SOUNDS else "video"
        return {"type": kind, "url": visual}
    if hasattr(visual, "save"):
        return {"type": "image", "url": visual}
    raise OmnisinkError(f"media must be paths or pictures, got {type(visual).__name__}")
