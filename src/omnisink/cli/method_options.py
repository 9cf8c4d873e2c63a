"""The options that name a method and set it, and the methods that they stand for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli.output import note, settings_checked, working
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.methods.base import Method
    from omnisink.methods.outro import OutRo
    from omnisink.models.loaded import Loaded

#: The method where none is named.
OUTRO = "outro"
#: Values of one setting that are written; of more, their number.
_SHOWN = 8

GammaOption = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Strength of the rotation; it belongs to a model, so tune it. [default: 3, the paper's; for the "
        "embedded models, for which 3 is too strong, their own]",
    ),
]
TauOption = Annotated[
    float | None, typer.Option(metavar="NUMBER", help="Temperature of the rotation's gate. [default: 0.1]")
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="A name that `omnisink methods` lists, with settings as in outro:gamma=0.3, or FILE.py::CLASS; "
        "outro+avcd attaches both.",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="FILE", help="Use the settings that `omnisink tune` stored."),
]
NoRotateOption = Annotated[bool, typer.Option("--no-rotate", help="Switch the rotation off.")]
NoRelaxOption = Annotated[bool, typer.Option("--no-relax", help="Switch the relaxation off.")]
NoDecodeOption = Annotated[
    bool, typer.Option("--no-decode", help="Do not change generated tokens, as in the authors' release.")
]


@dataclass(frozen=True)
class OutRoOptions:
    """The settings of OutRo that have options of their own."""

    gamma: GammaOption = None
    tau: TauOption = None
    no_rotate: NoRotateOption = False
    no_relax: NoRelaxOption = False
    no_decode: NoDecodeOption = False


#: The group with nothing said.
OUTRO_OPTIONS = OutRoOptions()


def make_outro(model: str, gamma: float | None, *, profile: str | None = None, **settings: Any) -> OutRo:
    """Build the method from options.

    Parameters
    ----------
    model : str
        What ``--model`` says; the embedded models have strengths of their own.
    gamma : float, optional
        What ``--gamma`` says; None is the model's default.
    profile : str, optional
        What ``--profile`` says: a file with all settings. `check_profile` says whether it is the model's.
    **settings
        Other settings of the method.

    Returns
    -------
    OutRo
        The settings.

    Raises
    ------
    OmnisinkError
        If one is out of range, or the file is not a profile.
    """
    with working("importing"):
        from omnisink.methods.outro import OutRo
        from omnisink.methods.shipped import default_outro

    if profile is not None:
        if gamma is not None:
            raise OmnisinkError("a profile has a gamma of its own: give --profile or --gamma")
        return OutRo.from_profile(profile)

    settings = {name: value for name, value in settings.items() if value is not None}
    if gamma is not None:
        settings["gamma"] = gamma
    with settings_checked():
        return replace(default_outro(model), **settings)


def starts_of(names: str, model: str, gamma: float | None, tau: float | None, profile: str | None) -> list[Method]:
    """Return the settings that the methods of a list start from: OutRo's options, and a profile of any of them.

    Raises
    ------
    OmnisinkError
        If a setting is out of range, the file is not a profile, or it is one of a method that is not in the list.
    """
    from omnisink.methods.shipped import default_router

    if profile is None:
        return [make_outro(model, gamma, tau=tau), default_router(model)]
    from omnisink.methods.outro import OutRo
    from omnisink.methods.profile import read_profile
    from omnisink.methods.registry import kinds_named, profiled_class

    kind = profiled_class(read_profile(profile))
    if not any(issubclass(one, kind) for one in kinds_named(names)):
        raise OmnisinkError(f"{profile} is a profile of {kind.__name__}, which is not among the methods {names}")
    if issubclass(OutRo, kind):
        return [make_outro(model, gamma, profile=profile, tau=tau), default_router(model)]
    return [make_outro(model, gamma, tau=tau), kind.from_profile(profile)]


def check_profile(method: Method, loaded: Loaded) -> None:
    """Say so where settings come from another model's profile: Python's own warnings are off on the command line."""
    if method.profile is not None and (found := method.profile.differences(loaded.model)):
        note(method.profile.message(found))


def make_method(name: str | None, model: str, seed: int = 0, outro: OutRoOptions = OUTRO_OPTIONS) -> Method | None:
    """Build the method that ``--method`` names.

    Parameters
    ----------
    name : str, optional
        What ``--method`` says; None is OutRo.
    model : str
        What ``--model`` says; OutRo's strength belongs to a model.
    seed : int
        For methods that draw at random.
    outro : OutRoOptions
        What OutRo's own options say.

    Returns
    -------
    Method or None
        None is the baseline.

    Raises
    ------
    OmnisinkError
        If there is no such method or setting, or OutRo's options are given for another method.
    """
    with working("importing"):
        from omnisink.methods.registry import parse_one_method

    name = name or OUTRO
    given = refuse_outro_options([name], **asdict(outro))
    settings = {"gamma": given.pop("gamma", None), **{part.removeprefix("no_"): False for part in given}}
    if "tau" in given:
        settings["tau"] = given["tau"]
    from omnisink.methods.shipped import default_router

    return parse_one_method(name, [make_outro(model, **settings), default_router(model)], seed)


def refuse_outro_options(names: list[str], **outro: Any) -> dict[str, Any]:
    """Return OutRo's options that were given, and refuse them where none of the methods is OutRo or derived from it.

    Raises
    ------
    OmnisinkError
        If the options would change nothing, or there is no such method.
    """
    from omnisink.methods.outro import OutRo
    from omnisink.methods.registry import kinds_named

    given = {option: value for option, value in outro.items() if value is not None and value is not False}
    kinds = [kind for name in names for kind in kinds_named(name)]
    if given and not any(issubclass(kind, OutRo) for kind in kinds):
        option = next(iter(given)).replace("_", "-")
        raise OmnisinkError(
            f"--{option} is a setting of OutRo, and {', '.join(names)} does not run OutRo: give settings with the "
            "name of the method, as in NAME:setting=value"
        )
    return given


def brief(method: Method) -> str:
    """Write a method with its settings: of OutRo, those of the command line; of others, all that are not none."""
    from dataclasses import fields

    from omnisink.methods.composed import Composed
    from omnisink.methods.outro import OutRo

    if isinstance(method, Composed):
        return " + ".join(map(brief, method.methods))
    if type(method) is OutRo:
        off = [f", {name}=False" for name in ("rotate", "relax", "decode") if not getattr(method, name)]
        return f"OutRo(gamma={method.gamma:g}, tau={method.tau:g}{''.join(off)})"
    values = {one.name: getattr(method, one.name) for one in fields(method)}
    said = [f"{name}={_short(value)}" for name, value in values.items() if value is not None]
    return f"{type(method).__name__}({', '.join(said)})"


def _short(value: Any) -> str:
    """Write the value of a setting as it is given in a name, and of many values how many there are."""
    from omnisink.methods.settings import to_plain

    plain = to_plain(value)
    if isinstance(plain, dict):
        return str(plain.get("name") or f"{len(plain)} values")
    if not isinstance(plain, list):
        return f"{plain:g}" if isinstance(plain, float) else str(plain)
    return f"[{','.join(map(_short, plain))}]" if len(plain) <= _SHOWN else f"{len(plain)} values"
