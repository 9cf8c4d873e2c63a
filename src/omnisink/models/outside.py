"""Loaders for models that transformers does not have, from other packages.

A loader is a function ``load(folder, **options)`` that returns the model, its tokenizer and, where there is one, its
processor. It is found by ``model_type`` in the folder's config.json, and asked before transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError

#: Entry points of this group are named by a model type, and name a loader.
GROUP = "omnisink.models"

#: From a folder and options of `from_pretrained` to model, tokenizer and processor or None.
Loader = Callable[..., tuple[Any, ...]]


def find_loader(model_type: str) -> Loader | None:
    """Return the loader for a model type, or None: transformers then loads it.

    Parameters
    ----------
    model_type : str
        ``model_type`` of config.json.

    Returns
    -------
    callable or None
        The function that the entry point names.

    Raises
    ------
    OmnisinkError
        If the loader cannot be imported, or is not a function.
    """
    for point in entry_points(group=GROUP):
        if point.name != model_type:
            continue
        try:
            found: Any = point.load()
        except Exception as error:
            raise OmnisinkError(f"the loader {point.name} ({point.value}) cannot be loaded: {error}") from error
        if not callable(found):
            raise OmnisinkError(f"the loader {point.name} ({point.value}) is not a function")
        return found  # type: ignore[no-any-return]
    return None


def load_outside(load: Loader, folder: Path, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Call a loader and check what it returns.

    Parameters
    ----------
    load : callable
        Result of `find_loader`.
    folder : Path
        With config.json and weights in safetensors.
    options : dict
        ``dtype``, ``attn_implementation`` and, if asked for, ``device_map``.

    Returns
    -------
    tuple
        Model, tokenizer and processor, None where there is none.

    Raises
    ------
    OmnisinkError
        If it returned something else.
    """
    made: Any = load(folder, **options)
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not hasattr(made[0], "config"):
        raise OmnisinkError(
            f"the loader of {folder.name} returned {_kinds(made)}: it returns (model, tokenizer), or (model, "
            "tokenizer, processor)"
        )
    model, tokenizer, processor = (*made, None)[:3]
    return model, tokenizer, processor


def read_weights(model_class: Any, folder: Path, name: str = "", **options: Any) -> Any:
    """Load a model's weights from safetensors into a class, and refuse a checkpoint that lacks some.

    Parameters
    ----------
    model_class : type
        A class with `from_pretrained`.
    folder : Path
        The checkpoint.
    name : str
        Its name in an error; empty is that of the folder.
    **options
        For `from_pretrained`.

    Returns
    -------
    PreTrainedModel
        The model.

    Raises
    ------
    OmnisinkError
        If weights are missing; transformers would fill them with random numbers and go on.
    """
    model, report = model_class.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True, **{"local_files_only": True, **options}
    )
    check_complete(name or folder.name, model, report)
    return model


def check_complete(name: str, model: Any, report: Mapping[str, Any]) -> None:
    """Refuse a model of which weights are missing; transformers fills them with random numbers and goes on.

    Parameters
    ----------
    name : str
        Its name in the error.
    model : PreTrainedModel
        The model.
    report : mapping
        What `from_pretrained` says with ``output_loading_info=True``.

    Raises
    ------
    OmnisinkError
        Naming the first weight.
    """
    if missing := sorted(report["missing_keys"]):
        raise OmnisinkError(
            f"{name} lacks {len(missing)} weights of {type(model).__name__}, the first being {missing[0]}"
        )


def _kinds(made: Any) -> str:
    return f"({', '.join(type(one).__name__ for one in made)})" if isinstance(made, tuple) else type(made).__name__
