"""Methods by name: what every command, and lmms-eval, accepts where it takes a method.

A method is named as ``name``, with what follows after colons: ``outro:rotate``, ``outro:gamma=0.3:tau=0.2``.
What follows is a preset of the method, a setting as ``field=value``, or a truth value by its name alone (``decode``,
``no-decode``). Methods of other packages are named by an entry point of the group ``omnisink.methods``; one in a file,
by the file and the class: ``path/to/file.py::Half:factor=0.2``.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, cast

from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.presets import Preset
from omnisink.methods.settings import field_types, read_value, split_outside, to_plain

#: Entry points of this group name a subclass of `Method`.
GROUP = "omnisink.methods"
#: The model without any method.
BASELINE = "baseline"
#: What stands between a file and the class in it.
_IN_FILE = "::"
_MARK = "_omnisink_file"

_OUTRO_CONTROL = "omnisink.methods.aimed:AimedOutRo"
#: The package's own methods, by name; a file is imported when its method is named.
BUILT_IN: dict[str, str] = {
    "outro": "omnisink.methods.outro:OutRo",
    "outro-control": _OUTRO_CONTROL,
    "replace-sink-value": "omnisink.methods.ablation:ReplaceSinkValue",
    "zero-sink-key": "omnisink.methods.ablation:ZeroSinkKey",
    "zero-heads": "omnisink.methods.ablation:ZeroHeads",
    "hide-tokens": "omnisink.methods.hiding:HideTokens",
}


@dataclass(frozen=True)
class Registered:
    """A method that can be named.

    Attributes
    ----------
    name : str
        What it is called by.
    kind : type of Method
        The class.
    origin : str
        ``"omnisink"``, or the package or file that it comes from.
    """

    name: str
    kind: type[Method]
    origin: str

    @property
    def summary(self) -> str:
        """The first sentence of the class's docstring."""
        text = inspect.getdoc(self.kind) or ""
        return " ".join(text.split("\n\n")[0].split())

    def settings(self) -> dict[str, str]:
        """Return the settings by name, each with its default as text; ``"required"`` where it has none."""
        found = {}
        for one in fields(self.kind):
            value = one.default
            if value is MISSING and one.default_factory is not MISSING:
                value = one.default_factory()
            found[one.name] = "required" if value is MISSING else _as_text(to_plain(value))
        return found


def registered_methods() -> list[Registered]:
    """Return every method that can be named without a file: omnisink's own, then those of other packages.

    Raises
    ------
    OmnisinkError
        If an entry point cannot be loaded, or is not a method.
    """
    own = [Registered(name, _load(home), "omnisink") for name, home in BUILT_IN.items()]
    return own + [Registered(one.name, _load_entry_point(one), _package_of(one)) for one in _entry_points()]


def find_method(name: str) -> type[Method]:
    """Return the class of a method.

    Parameters
    ----------
    name : str
        A registered name, or ``file.py::Class``.

    Returns
    -------
    type of Method
        The class.

    Raises
    ------
    OmnisinkError
        If nothing has this name, or what has it is not a method.
    """
    if _IN_FILE in name:
        return _load_from_file(name)
    if name in BUILT_IN:
        return _load(BUILT_IN[name])
    others = {one.name: one for one in _entry_points()}
    if name in others:
        return _load_entry_point(others[name])
    known = ", ".join([BASELINE, *BUILT_IN, *others])
    raise OmnisinkError(f"there is no method {name!r}: use one of {known}, or FILE.py{_IN_FILE}CLASS")


def parse_methods(
    names: str, starts: Iterable[Method] | Method | None = None, seed: int = 0
) -> dict[str, Method | None]:
    """Read a list of methods.

    Parameters
    ----------
    names : str
        Names as the head of this file describes them, separated by commas; ``baseline`` is the model without a method.
    starts : Method or iterable of Method, optional
        Settings that methods of these classes start from; other classes start from their defaults.
    seed : int
        For methods that have a setting of this name, where none is given.

    Returns
    -------
    dict of str to Method or None
        By name, in order; None is the baseline.

    Raises
    ------
    OmnisinkError
        If there is no such method or setting, a value is out of range, or a name is there twice.
    """
    found: dict[str, Method | None] = {}
    for name in _split(names, ","):
        if not name:
            continue
        if name in found:
            raise OmnisinkError(f"the method {name} is named twice")
        found[name] = None if name == BASELINE else parse_method(name, starts, seed)
    if not found:
        raise OmnisinkError(f"name at least one method, as in: {BASELINE},outro")
    return found


def parse_method(name: str, starts: Iterable[Method] | Method | None = None, seed: int = 0) -> Method:
    """Read one method; see `parse_methods`."""
    head, parts = _head_and_parts(name)
    kind = find_method(head)
    given = {type(one): one for one in ([starts] if isinstance(starts, Method) else starts or ())}
    presets: list[Preset] = []
    texts: dict[str, str] = {}
    for part in parts:
        field, equals, value = part.partition("=")
        if equals:
            if field in texts:
                raise OmnisinkError(f"{name}: {field} is given twice")
            texts[field] = value.strip()
        elif part in kind.presets:
            presets.append(kind.presets[part])
        elif part.removeprefix("no-") in _flags(kind):
            texts[part.removeprefix("no-")] = str(not part.startswith("no-"))
        else:
            raise OmnisinkError(f"{name}: {part!r} is none of {_known(kind)}")
    made = _make(name, kind, given.get(kind), presets, texts)
    if "seed" in field_types(type(made)) and "seed" not in texts:
        made = replace(made, seed=seed)  # type: ignore[call-arg]  # the field is there
    return made


def settings_of(method: Method | None) -> dict[str, Any] | None:
    """Return a method's class and settings as plain data, for a manifest; None for the baseline.

    A method that came from a file has the SHA-256 of that file too: a run is not taken up with other code.
    """
    if method is None:
        return None
    code = getattr(sys.modules.get(type(method).__module__), _MARK, None)
    return {
        "name": type(method).__name__,
        **{one.name: to_plain(getattr(method, one.name)) for one in fields(method)},
        **({} if code is None else {"code_sha256": code}),
    }


def _make(name: str, kind: type[Method], start: Method | None, presets: list[Preset], texts: dict[str, str]) -> Method:
    """Build the method: settings first, as a preset such as `away` changes what was asked for, whatever the order."""
    final = next((_load(one.home) for one in reversed(presets) if one.home is not None), kind)
    types = {**field_types(kind), **field_types(final)}
    if unknown := [field for field in texts if field not in types]:
        raise OmnisinkError(f"{name}: {unknown[0]!r} is none of {_known(final)}")
    try:
        values = {field: read_value(text, types[field]) for field, text in texts.items()}
        own = {field: value for field, value in values.items() if field in field_types(kind)}
        made = kind(**own) if start is None else replace(start, **own) if own else start
        for one in presets:
            made = one.apply(made, _load(one.home) if one.home is not None else None)
        rest = {field: value for field, value in values.items() if field not in own}
        return replace(made, **rest) if rest else made
    except (TypeError, ValueError, OverflowError) as error:
        raise OmnisinkError(f"{name}: {error}") from None


def _head_and_parts(name: str) -> tuple[str, list[str]]:
    """Divide a name from what follows it; the path of a file may hold colons of its own."""
    path, in_file, rest = name.partition(_IN_FILE)
    head, *parts = _split(rest if in_file else name, ":")
    return (f"{path}{_IN_FILE}{head}" if in_file else head), [part for part in parts if part]


def _split(text: str, separator: str) -> list[str]:
    try:
        return list(split_outside(text, separator))
    except ValueError as error:
        raise OmnisinkError(f"the methods cannot be read: {error}") from None


def _flags(kind: type[Method]) -> list[str]:
    return [field for field, hint in field_types(kind).items() if hint is bool]


def _known(kind: type[Method]) -> str:
    return ", ".join([*kind.presets, *(f"{field}=" for field in field_types(kind))])


def _as_text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _load(home: str) -> type[Method]:
    module, name = home.split(":")
    found: type[Method] = getattr(import_module(module), name)
    return found


def _entry_points() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda one: one.name)


def _package_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _load_entry_point(point: EntryPoint) -> type[Method]:
    where = f"the method {point.name} ({point.value})"
    if point.name in BUILT_IN or point.name == BASELINE:
        raise OmnisinkError(f"{where} has the name of one of omnisink's own: its package must choose another")
    try:
        found = point.load()
    except Exception as error:
        raise OmnisinkError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    return _checked(found, where)


@cache
def _load_from_file(name: str) -> type[Method]:
    """Import the file that a user named, once, and return the class in it."""
    path, _, attribute = name.partition(_IN_FILE)
    file = Path(path).expanduser()
    if not file.is_file():
        raise OmnisinkError(f"there is no file {path}, which should hold the method {attribute or 'to use'}")
    file = file.resolve()
    code = hashlib.sha256(file.read_bytes()).hexdigest()
    module_name = f"omnisink_method_{code[:16]}"
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
        setattr(module, _MARK, code)
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
