"""The entry of a ported model: a tiny checkpoint of it, and what is promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class PortedModel:
    """A model that omnisink loads itself, and how to make a tiny checkpoint of it.

    The makers import torch and transformers when they are called: the list of models is shown without either.

    Attributes
    ----------
    name : str
        Short name, as ``omnisink models NAME`` takes it.
    title : str
        Name for people.
    model_type : str
        Its type in `PORTS`: the ``model_type`` of ``config.json``, unless that is lent by another model.
    modalities : tuple of str
        Modalities it takes: ``"text"``, ``"image"``, ``"video"``, ``"audio"``.
    example : str
        A checkpoint on the Hub, or ``"FOLDER"`` where the released one has to be converted first.
    save : callable
        ``save(folder)`` writes a tiny checkpoint with the released names of files and weights, and returns the folder.
        Embedding and output layer are not tied.
    reference : callable or None
        ``reference(folder)`` returns transformers' own language model with the weights of that checkpoint. It is
        given the embeddings that reach the port's decoder. None where transformers has no such class.
    hears_videos : bool
        Whether the sound of a video is heard with its pictures; of interest where it takes both.
    lacks : str
        What does not run, for the table.
    backends : tuple of str
        Attention implementations that run it.
    remote_code : bool
        Whether the checkpoint brings its own code, which omnisink runs as it is.
    """

    name: str
    title: str
    model_type: str
    modalities: tuple[str, ...]
    example: str
    save: Callable[[Path], Path]
    reference: Callable[[Path], Any] | None = None
    hears_videos: bool = True
    lacks: str = ""
    backends: tuple[str, ...] = ("sdpa", "eager")
    remote_code: bool = False

    #: A port that does not run is taken out, so that every entry promises the same.
    expectation: ClassVar[Literal["supported"]] = "supported"

    @property
    def note(self) -> str:
        """What does not run, as the entry of a family has its note."""
        return f"without {self.lacks}" if self.lacks else ""

    @property
    def command(self) -> str:
        """A command that asks it about what it takes."""
        files = {"video": "clip.mp4", "image": "picture.png", "audio": "sound.wav"}
        file = next((files[name] for name in files if name in self.modalities), "")
        question = "What is heard?" if file.endswith(".wav") else "What is seen?" if file else "Why is the sea salty?"
        download = "" if self.example == "FOLDER" else " --download"
        download += " --trust-remote-code" if self.remote_code else ""
        return f'omnisink ask {file + " " if file else ""}"{question}" --model {self.example}{download}'
