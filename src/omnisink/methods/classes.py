"""Classes of methods where they are: in omnisink, in another package, or in a file that a user names."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Collection
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, cast

from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.names import FILE_ATTRIBUTE, IN_FILE

#: Attribute of classes that came from a file: the SHA-256 of the file. It goes with a class to another process.
_CODE = "_omnisink_code_sha256"
#: How the modules of files are called, before the SHA-256.
_MODULE = "omnisink_method_"


def class_at(home: str) -> type[Method]:
    """Import ``module:Class``."""
    module, name = home.split(":")
    found: type[Method] = getattr(import_module(module), name)
    return found


def class_of_entry_point(point: EntryPoint, taken: Collection[str]) -> type[Method]:
    """Load a method of another package, whose name must not be one of those that are taken.

    Raises
    ------
    OmnisinkError
        If the name is taken, or what it stands for cannot be loaded or is not a method.
    """
    where = f"the method {point.name} ({point.value})"
    if point.name in taken:
        raise OmnisinkError(f"{where} has the name of one of omnisink's own: its package must choose another")
    try:
        found = point.load()
    except Exception as error:
        raise OmnisinkError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    return _checked(found, where)


@cache
def class_in_file(name: str) -> type[Method]:
    """Import the file of ``path/to/file.py::Class``, once, and return the class in it.

    Raises
    ------
    OmnisinkError
        If there is no such file or class, the file cannot be imported, or the class is not a method.
    """
    path, _, attribute = name.partition(IN_FILE)
    file = Path(path).expanduser()
    if not file.is_file():
        raise OmnisinkError(f"there is no file {path}, which should hold the method {attribute or 'to use'}")
    file = file.resolve()
    code = hashlib.sha256(file.read_bytes()).hexdigest()
    module_name = f"{_MODULE}{code[:16]}"
    if module_name not in sys.modules:
        spec = spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise OmnisinkError(f"{path} is not a Python file")
        module = module_from_spec(spec)
        # Dataclasses look their own module up while they are made.
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[module_name]
            if not isinstance(error, Exception):
                raise
            raise OmnisinkError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        for value in vars(module).values():
            if _is_method(value) and value.__module__ == module_name:
                setattr(value, _CODE, code)
                setattr(value, FILE_ATTRIBUTE, path)
    module = sys.modules[module_name]
    if not hasattr(module, attribute):
        own = [one for one, value in vars(module).items() if _is_method(value) and value.__module__ == module_name]
        raise OmnisinkError(f"{path} has no class {attribute!r}; the methods in it: {', '.join(own) or 'none'}")
    return _checked(getattr(module, attribute), f"{attribute} in {path}")


def _is_method(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Method)


def _checked(found: Any, where: str) -> type[Method]:
    if not _is_method(found):
        raise OmnisinkError(f"{where} is not a subclass of omnisink.methods.Method")
    if inspect.isabstract(found):
        raise OmnisinkError(f"{where} does not override {', '.join(sorted(found.__abstractmethods__))}")
    if not is_dataclass(found) or "__dataclass_fields__" not in vars(found):
        raise OmnisinkError(f"{where} is not a dataclass: decorate it with @dataclass(frozen=True)")
    return cast(type[Method], found)


def code_of(kind: type[Method]) -> str | None:
    """Return the SHA-256 of the file that a class was named by; None for classes of packages.

    A class of a script or of a notebook's cell is known by the code of its functions, since a run must not go on with
    another class of the same name.
    """
    found: str | None = getattr(kind, _CODE, None)
    if found is None and kind.__module__ == "__main__":
        own = sorted((name, value.__code__) for name, value in vars(kind).items() if isinstance(value, FunctionType))
        return hashlib.sha256(repr([(name, _plain(code)) for name, code in own]).encode()).hexdigest()
    return found


def _plain(code: CodeType) -> tuple[Any, ...]:
    """Return what a function does, without the places in files where it stands."""
    # A set of constants has no order, and its text another one in every process.
    constants = [
        _plain(one)
        if isinstance(one, CodeType)
        else sorted(map(repr, one))
        if isinstance(one, frozenset)
        else repr(one)
        for one in code.co_consts
    ]
    return (code.co_code.hex(), constants, code.co_names, code.co_varnames)


def modules_of_files() -> list[Any]:
    """Return the modules that were imported by the file's name, which no other process can import by theirs."""
    return [module for name, module in sorted(sys.modules.items()) if name.startswith(_MODULE)]
