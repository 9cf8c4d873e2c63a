"""Whether a checkpoint of VideoLLaMA 2.1-AV can hear: where the weights of BEATs are, and of which shapes.

The release builds BEATs with settings from its code, or from the pickled file. Here they are read from the shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError

#: What begins the names of the weights, after ``model.``.
TOWER, PROJECTOR = "audio_tower.", "mm_projector_a."
#: What to do to a checkpoint that cannot hear, for messages.
TO_HEAR = (
    "its BEATs and what follows it (audio_tower, mm_projector_a) are not in files of safetensors. docs/ports.md has "
    "the command that converts audio_tower.bin"
)
#: What the type of a model that can hear ends with, once it is loaded.
SUFFIX = "_av"


@dataclass(frozen=True)
class Ears:
    """The weights that a model hears with.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        By the released name, as ``audio_tower.layer_norm.weight``.
    beside : tuple of Path
        Files that hold them beside those of the model, which transformers does not read.
    """

    shapes: dict[str, tuple[int, ...]]
    beside: tuple[Path, ...]


def find_ears(name: str, folder: Path) -> Ears | None:
    """Return the weights of BEATs and its projector in a folder's files in safetensors; None where one is missing.

    Parameters
    ----------
    name : str
        The checkpoint, for the error.
    folder : Path
        With the files.

    Raises
    ------
    OmnisinkError
        If a file has no header.
    """
    from omnisink.models.headers import tensor_shapes  # Adapters import this module without importing torch.

    shapes: dict[str, tuple[int, ...]] = {}
    beside = []
    # Those of the model itself first: what is saved twice is read from there.
    for file in sorted(folder.glob("*.safetensors"), key=lambda f: (not f.name.startswith("model"), f.name)):
        found = {full.removeprefix("model."): shape for full, shape in tensor_shapes(file, name).items()}
        found = {short: shape for short, shape in found.items() if short.startswith((TOWER, PROJECTOR))}
        if not found.keys() <= shapes.keys() and not file.name.startswith("model"):
            beside.append(file)
        shapes = found | shapes
    if not all(any(short.startswith(part) for short in shapes) for part in (TOWER, PROJECTOR)):
        return None
    return Ears(shapes, tuple(beside))


def will_hear(folder: Path, config: dict[str, Any]) -> bool:
    """Tell whether a checkpoint will hear once it is loaded, from its files.

    Parameters
    ----------
    folder : Path
        The checkpoint. Where its weights are not there yet, or damaged, the configuration says it.
    config : dict
        Its config.json.
    """
    if config.get("mm_audio_tower") is None:
        return False
    try:
        return find_ears(folder.name, folder) is not None or not any(folder.glob("*.safetensors"))
    except OmnisinkError:
        return True


@contextmanager
def unreported(ears: Ears | None) -> Iterator[None]:
    """Keep transformers from reporting as missing in the block what `read_beside` reads after it."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    if ears is not None and ears.beside:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def read_beside(model: Any, ears: Ears, names: dict[str, str], missing: Iterable[str]) -> list[str]:
    """Load what a model hears with from files that transformers does not read.

    Parameters
    ----------
    model : PreTrainedModel
        With the modules for it.
    ears : Ears
        Result of `find_ears`.
    names : dict of str to str
        Patterns of released names, each with the name here.
    missing : iterable of str
        The model's weights that were not loaded.

    Returns
    -------
    list of str
        Those that still were not.
    """
    from safetensors.torch import load_file

    from omnisink.models.ports.beats import renamed

    weights: dict[str, Any] = {}
    for file in ears.beside:
        found = {renamed(f"model.{name.removeprefix('model.')}", names): one for name, one in load_file(file).items()}
        weights = found | weights
    wanted = {name: weights[name] for name in missing if name in weights}
    model.load_state_dict(wanted, strict=False)
    return [name for name in missing if name not in wanted]
