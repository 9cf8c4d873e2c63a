"""What a checkpoint says without its weights being read: its number of layers, and whether that is possible."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError, shown
from omnisink.models import embedded, smolomni
from omnisink.models.gguf.architectures import peek
from omnisink.models.hub import find_cached
from omnisink.results.reading import parse_object, read_whole

#: Bytes of a configuration, and of the header of a file of weights, at most. safetensors itself allows 100 MB.
_CONFIG, _HEADER = 2**26, 100_000_000
#: Layers of both embedded models.
_EMBEDDED_DEPTH = 30
#: Names under which configurations say how many layers there are.
_DEPTHS = re.compile(r"(?:num|n)_(?:\w+_)?(?:layers?|blocks)|(?:encoder|decoder)_layers|depth|n_layer")


def depth_of(model: str, revision: str | None = None) -> int | None:
    """Return how many decoder layers a model has, as far as that is known without loading it.

    Parameters
    ----------
    model : str
        As for `omnisink.models.loading.load_model`.
    revision : str, optional
        On the Hub.

    Returns
    -------
    int or None
        None where the model is not here, or its configuration does not say.
    """
    if model.lower() in (smolomni.NAME, embedded.NAME):
        return _EMBEDDED_DEPTH
    if (packed := peek(model)) is not None:
        return packed[1]
    folder = Path(model).expanduser()
    try:
        there = folder if folder.is_dir() else find_cached(model, revision)
        if there is None:
            return None
        config = parse_object(read_whole(there / "config.json", _CONFIG), there / "config.json")
    except (OmnisinkError, OSError, ValueError):
        return None  # Loading says why.
    # As transformers nests them: a thinker holds a text configuration, which holds the layers.
    for key in ("thinker_config", "text_config"):
        config = config[key] if isinstance(config.get(key), dict) else config
    depth = config.get("num_hidden_layers")
    return depth if isinstance(depth, int) and not isinstance(depth, bool) and depth > 0 else None


def check_layers(name: str, folder: Path) -> None:
    """Refuse a configuration of more layers than its weights can be of, before anything is built of it.

    Every layer has a tensor of its own at least. A model is built before its weights are read, and one of a billion
    layers takes all memory.

    Parameters
    ----------
    name : str
        The model, for the error.
    folder : Path
        The folder with ``config.json`` and files in safetensors.

    Raises
    ------
    OmnisinkError
        If ``config.json`` is not a JSON object or names more layers than there are tensors, or a file of weights has
        no header.
    """
    config = parse_object(read_whole(folder / "config.json", _CONFIG), f"{name}: config.json")
    depth, where = max(_depths(config), default=(0, ""))
    if depth <= 1:
        return
    tensors = sum(len(_header(file, name)) for file in folder.glob("*.safetensors"))
    if depth > tensors:
        raise OmnisinkError(
            f"{name} cannot be loaded: its config.json has {where} {shown(depth)}, and its weights are of {tensors} "
            "tensors in all"
        )


def _depths(config: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield every number of layers in a configuration, with its name."""
    left = [config]
    while left:
        for key, value in left.pop().items():
            if isinstance(value, dict):
                left.append(value)
            elif isinstance(value, int) and not isinstance(value, bool) and _DEPTHS.fullmatch(key):
                yield value, key


def tensor_shapes(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a file in safetensors, without reading them.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The model, for the error.

    Returns
    -------
    dict of str to tuple of int
        By name.

    Raises
    ------
    OmnisinkError
        If the file has no header.
    """
    try:
        return {one: tuple(held["shape"]) for one, held in _header(path, name).items() if one != "__metadata__"}
    except (KeyError, TypeError) as error:
        raise OmnisinkError(f"{name} could not be loaded: {path.name} has no header of safetensors") from error


def _header(path: Path, name: str) -> dict[str, Any]:
    """Return what the header of a file in safetensors says of every tensor."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _HEADER:
                raise ValueError(f"its header is of {size:,d} bytes")
            header = json.loads(file.read(size))
    except (OSError, ValueError, RecursionError) as error:
        raise OmnisinkError(
            f"{name} could not be loaded: {path.name} has no header of safetensors: {error}"
        ) from error
    return header if isinstance(header, dict) else {}
