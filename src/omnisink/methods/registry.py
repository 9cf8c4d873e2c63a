"""Methods by name: what every command, and lmms-eval, accepts where it takes a method.

A method is named as ``name``, with what follows after colons: ``outro:rotate``, ``outro:gamma=0.3:tau=0.2``.
What follows is a preset of the method, a setting as ``field=value``, or a truth value by its name alone (``decode``,
``no-decode``). Methods of other packages are named by an entry point of the group ``omnisink.methods``; one in a file,
by the file and the class: ``path/to/file.py::Half:factor=0.2``. Several methods at once are written with a plus sign
between them, and attached in that order: ``outro+avcd``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, replace
from importlib.metadata import EntryPoint
from itertools import takewhile
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.methods.base import Method
from omnisink.methods.classes import class_at, class_in_file, class_of_entry_point, code_of
from omnisink.methods.composed import Composed
from omnisink.methods.names import ALL, BASELINE, BUILT_IN, IN_FILE, outside_methods
from omnisink.methods.presets import Preset
from omnisink.methods.profile import Profile
from omnisink.methods.settings import field_types, plain_settings, read_value, to_plain
from omnisink.methods.written import AND, head_and_parts, split_composed, split_list


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

    def facts(self) -> dict[str, str]:
        """Return what the class says of itself, by the attributes of `omnisink.methods.listing.Listed`.

        What was measured is said of one class: those derived from it do not have it.
        """
        kind = self.kind
        own = takewhile(lambda base: base is kind or not issubclass(base, Method), kind.__mro__)
        needs = [*(["modality spans"] if kind.needs_spans else []), *([kind.needs] if kind.needs else [])]
        return {
            "source": kind.source,
            "licence": kind.licence,
            "derived": kind.derived,
            "needs": "; ".join(needs),
            "cost": kind.cost,
            "measured": next((vars(base)["measured"] for base in own if "measured" in vars(base)), ""),
            "tested": kind.tested,
        }

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
    own = [Registered(name, class_at(home), "omnisink") for name, home in BUILT_IN.items()]
    return own + [Registered(one.name, _from_package(one), _package_of(one)) for one in outside_methods()]


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
    if IN_FILE in name:
        return class_in_file(name)
    if name in BUILT_IN:
        return class_at(BUILT_IN[name])
    others = {one.name: one for one in outside_methods()}
    if name in others:
        return _from_package(others[name])
    if name == ALL:
        raise OmnisinkError(
            f"{ALL} stands for every method that a model and a task admit: it is taken in the list of a run, as "
            f"omnisink eval --methods {ALL}"
        )
    known = ", ".join([BASELINE, *BUILT_IN, *others])
    raise OmnisinkError(f"there is no method {name!r}: use one of {known}, or FILE.py{IN_FILE}CLASS")


def profiled_class(profile: Profile) -> type[Method]:
    """Return the class of the method that a profile is of.

    Raises
    ------
    OmnisinkError
        If there is no such method, or it cannot be imported.
    """
    try:
        return find_method("outro" if profile.method == "OutRo" else profile.method)
    except OmnisinkError as error:
        raise OmnisinkError(f"{profile.path}: the method of the profile cannot be used: {error}") from None


def parse_methods(
    names: str, starts: Iterable[Method] | Method | None = None, seed: int = 0
) -> dict[str, Method | None]:
    """Read a list of methods.

    Parameters
    ----------
    names : str
        Names as the head of this file describes them, separated by commas; ``baseline`` is the model without a method.
    starts : Method or iterable of Method, optional
        Settings that methods of these classes, and of classes derived from them, start from; others start from their
        defaults.
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
    for name in split_methods(names):
        if name in found:
            raise OmnisinkError(f"the method {name} is named twice")
        found[name] = None if name == BASELINE else parse_method(name, starts, seed)
    if not found:
        raise OmnisinkError(f"name at least one method, as in: {BASELINE},outro")
    return found


def parse_method(name: str, starts: Iterable[Method] | Method | None = None, seed: int = 0) -> Method:
    """Read one method, or several that act at once; see `parse_methods`."""
    names = split_composed(name, find_method)
    if len(names) > 1 and BASELINE in names:
        raise OmnisinkError(f"{name}: {BASELINE} is the model without a method, and is composed with none")
    starts = [starts] if isinstance(starts, Method) else list(starts or ())
    made = [_parse_one(one, starts, seed) for one in names]
    return made[0] if len(made) == 1 else Composed(tuple(made))


def _parse_one(name: str, starts: Iterable[Method], seed: int) -> Method:
    head, parts = head_and_parts(name)
    kind = find_method(head)
    start = _start(kind, starts)
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
    made = _make(name, kind, start, presets, texts)
    if "seed" in field_types(type(made)) and "seed" not in texts:
        made = replace(made, seed=seed)  # type: ignore[call-arg]  # the field is there
    return made


def split_methods(names: str) -> list[str]:
    """Return the names in a list of methods, in order, each as it is written in records; none is looked up."""
    return [AND.join(split_composed(name, find_method)) for name in split_list(names, ",") if name]


def parse_one_method(name: str, starts: Iterable[Method] | Method | None = None, seed: int = 0) -> Method | None:
    """Read the name of one method, or ``baseline``, which gives None; see `parse_methods`."""
    found = parse_methods(name, starts, seed)
    if len(found) > 1:
        raise OmnisinkError(f"one method at a time is run here, got {', '.join(found)}: run it once for each")
    return next(iter(found.values()))


def kinds_named(names: str) -> list[type[Method]]:
    """Return the class of every method of a list, of a composition in it, and of those ``all`` may stand for."""
    every = split_methods(names)
    heads = [head_and_parts(one)[0] for name in every for one in split_composed(name, find_method)]
    found = [find_method(head) for head in heads if head not in (BASELINE, ALL)]
    return found + [one.kind for one in registered_methods()] * (ALL in heads)


def settings_of(method: Method | None) -> dict[str, Any] | None:
    """Return a method's class and settings as plain data, for a manifest; None for the baseline.

    A method that came from a file has the SHA-256 of that file too: a run is not taken up with other code. A
    composition has its methods, each with class and settings, in the order in which they are attached.
    """
    if method is None:
        return None
    if isinstance(method, Composed):
        return {"name": str(method), "methods": [settings_of(one) for one in method.methods]}
    code = code_of(type(method))
    return {
        "name": type(method).__name__,
        **plain_settings(method),
        **({} if code is None else {"code_sha256": code}),
    }


def _start(kind: type[Method], starts: Iterable[Method]) -> Method | None:
    """Return what a class starts from: settings of its own, or of the nearest class that it is derived from."""
    given = {type(one): one for one in starts}
    found = next((given[base] for base in kind.__mro__ if base in given), None)
    if found is None or type(found) is kind:
        return found
    return kind(**{one.name: getattr(found, one.name) for one in fields(found)})


def _make(name: str, kind: type[Method], start: Method | None, presets: list[Preset], texts: dict[str, str]) -> Method:
    """Build the method: settings first, as a preset such as `away` changes what was asked for, whatever the order."""
    final = next((class_at(one.home) for one in reversed(presets) if one.home is not None), kind)
    types = {**field_types(kind), **field_types(final)}
    if unknown := [field for field in texts if field not in types]:
        raise OmnisinkError(f"{name}: {unknown[0]!r} is none of {_known(final)}")
    try:
        values = {field: read_value(text, types[field]) for field, text in texts.items()}
        own = {field: value for field, value in values.items() if field in field_types(kind)}
        made = kind(**own) if start is None else replace(start, **own) if own else start
        for one in presets:
            made = one.apply(made, class_at(one.home) if one.home is not None else None)
        rest = {field: value for field, value in values.items() if field not in own}
        return replace(made, **rest) if rest else made
    except (TypeError, ValueError, OverflowError) as error:
        raise OmnisinkError(f"{name}: {error}") from None


def _flags(kind: type[Method]) -> list[str]:
    return [field for field, hint in field_types(kind).items() if hint is bool]


def _known(kind: type[Method]) -> str:
    return ", ".join([*kind.presets, *(f"{field}=" for field in field_types(kind))])


def _as_text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _package_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _from_package(point: EntryPoint) -> type[Method]:
    return class_of_entry_point(point, (BASELINE, *BUILT_IN))
