"""Checks before a model is loaded, so that a mistyped option costs a second and not the minute of a load."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from omnisink.cli.output import working
from omnisink.errors import OmnisinkError
from omnisink.extras import install

#: What statistics need, by the name that Python imports.
_STATISTICS = {"scipy": "scipy", "statsmodels": "statsmodels"}


def check_statistics() -> None:
    """Check that the libraries of the statistics are installed.

    Raises
    ------
    OmnisinkError
        If a library is not installed.
    """
    if missing := [package for module, package in _STATISTICS.items() if find_spec(module) is None]:
        raise OmnisinkError(f"statistics need {' and '.join(missing)}, which cannot be imported; {install('report')}")


def check_report() -> None:
    """Check that the libraries of a report are installed; errors as for `check_statistics`."""
    from omnisink.report.write import check_libraries

    check_statistics()
    check_libraries()


def check_there(model: str, download: bool = False) -> None:
    """Check that a model is a folder or in the local cache, before PyTorch is imported.

    Raises
    ------
    OmnisinkError
        As `omnisink.models.loading.load_model`.
    """
    from omnisink.models import embedded, smolomni
    from omnisink.models.gguf.places import find_gguf

    if model.lower() in (embedded.NAME, smolomni.NAME):
        return
    find_gguf(model)  # Refuses a folder with several, and a file that is not there.
    if download or Path(model).expanduser().exists():
        return
    from omnisink.models.hub import require

    require(model, None, download=False, with_code=False)


def check_model(
    model: str, device: str | None, dtype: str, layers: Iterable[int] = (), name: str = "--layers"
) -> None:
    """Check the options of a model as far as that is possible without its weights.

    Parameters
    ----------
    model : str
        Value of ``--model``.
    device : str, optional
        Value of ``--device``.
    dtype : str
        Value of ``--dtype``.
    layers : iterable of int
        Layers that are asked for, by their numbers.
    name : str
        The option that named them, for the error.

    Raises
    ------
    OmnisinkError
        If there is no such device, dtype or layer.
    """
    with working("looking at the model"):
        from omnisink.models.headers import depth_of
        from omnisink.models.loading import check_device, check_dtype

        check_device(device)
        check_dtype(dtype)
        depth = depth_of(model)
    outside = [] if depth is None else [layer for layer in layers if not 0 <= layer < depth]
    if depth is not None and outside:
        raise OmnisinkError(f"{name} names {outside}, but the model has layers 0 to {depth - 1}")
