"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli.output import note, quiet, settings_checked, working
from omnisink.errors import OmnisinkError, shown

if TYPE_CHECKING:
    from omnisink.methods.base import Method
    from omnisink.methods.outro import OutRo
    from omnisink.models.adapters.spans import Modality
    from omnisink.models.loaded import Loaded

#: The method where none is named.
OUTRO = "outro"
#: What every generator of random numbers takes that a seed is given to: NumPy's and Optuna's take 32 bits.
LARGEST_SEED = 2**32 - 1

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="NAME", help="smolomni, smollm2-135m, a local folder, or a name on the Hub."
    ),
]
DeviceOption = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, ... [default: cpu]")]
DtypeOption = Annotated[
    str, typer.Option(metavar="TYPE", help="float32, bfloat16, float16, or auto: the checkpoint's own.")
]
AttentionOption = Annotated[
    str | None,
    typer.Option("--attn", metavar="NAME", help="sdpa, eager, flex_attention, ... [default: transformers' choice]"),
]
DownloadOption = Annotated[
    bool,
    typer.Option(
        "--download", help="Fetch from the Hub what is not in its local cache. Without it, no network is used."
    ),
]
RemoteCodeOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")
]
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
        help="A name that `omnisink methods` lists, with settings as in outro:gamma=0.3, or FILE.py::CLASS.",
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
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KIND=GROUP", help="Only questions of a group, as task='AV Matching'; repeatable."),
]
AllowMissingFlag = Annotated[
    bool,
    typer.Option(
        "--allow-missing", help="Go on without files that are missing; their questions are recorded as errors."
    ),
]
LongPromptFlag = Annotated[
    bool,
    typer.Option("--allow-long-prompt", help="Run prompts even if they are longer than the model's context."),
]
LengthsOption = Annotated[
    str | None,
    typer.Option(
        "--lengths", metavar="LIST", help="Tokens of a prompt and its answer, as 1024,4096, for long-context tasks."
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@dataclass(frozen=True)
class LoadingOptions:
    """How a model is loaded: the options of every verb that loads one."""

    device: DeviceOption = None
    dtype: DtypeOption = "auto"
    attn: AttentionOption = None
    download: DownloadOption = False
    trust_remote_code: RemoteCodeOption = False
    allow_long_prompt: LongPromptFlag = False

    def for_loading(self) -> dict[str, Any]:
        """Return them as `omnisink.models.loading.load_model` takes them."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "attn_implementation": self.attn,
            "download": self.download,
            "trust_remote_code": self.trust_remote_code,
            "allow_long_prompts": self.allow_long_prompt,
        }


@dataclass(frozen=True)
class OutRoOptions:
    """The settings of OutRo that have options of their own."""

    gamma: GammaOption = None
    tau: TauOption = None
    no_rotate: NoRotateOption = False
    no_relax: NoRelaxOption = False
    no_decode: NoDecodeOption = False


#: The groups with nothing said.
LOADING, OUTRO_OPTIONS = LoadingOptions(), OutRoOptions()


def groups_of(only: list[str] | None) -> dict[str, str]:
    """Return what ``--only`` says, by kind of group.

    Raises
    ------
    OmnisinkError
        If one is not of the form KIND=GROUP, or a kind is named twice.
    """
    found: dict[str, str] = {}
    for said in only or ():
        kind, equals, group = said.partition("=")
        if not (kind and equals and group) or kind in found:
            raise OmnisinkError(f"--only takes KIND=GROUP, each kind once, got {said!r}")
        found[kind] = group
    return found


def task_settings(lengths: str | None) -> dict[str, Any]:
    """Return what a user chooses of a task's questions.

    Raises
    ------
    OmnisinkError
        If ``--lengths`` is not a list of whole numbers.
    """
    if lengths is None:
        return {}
    parts = [part.strip() for part in lengths.split(",")]
    # Python itself reads no number of more than 4,300 digits.
    if not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
        raise OmnisinkError(f"--lengths takes whole numbers of tokens with commas between, got {shown(lengths)}")
    return {"lengths": tuple(map(int, parts))}


def make_outro(model: str, gamma: float | None, *, profile: str | None = None, **settings: Any) -> OutRo:
    """Build the method from options.

    Parameters
    ----------
    model : str
        Value of ``--model``; the embedded models have strengths of their own.
    gamma : float, optional
        Value of ``--gamma``; None is the model's default.
    profile : str, optional
        Value of ``--profile``: a file with all settings. `check_profile` compares it with the model.
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
    if profile is None:
        return [make_outro(model, gamma, tau=tau)]
    from omnisink.methods.outro import OutRo
    from omnisink.methods.profile import read_profile
    from omnisink.methods.registry import kinds_named, profiled_class

    kind = profiled_class(read_profile(profile))
    if not any(issubclass(one, kind) for one in kinds_named(names)):
        raise OmnisinkError(f"{profile} is a profile of {kind.__name__}, which is not among the methods {names}")
    if issubclass(OutRo, kind):
        return [make_outro(model, gamma, profile=profile, tau=tau)]
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
        Value of ``--method``; None is OutRo.
    model : str
        Value of ``--model``; OutRo's strength belongs to a model.
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
    return parse_one_method(name, make_outro(model, **settings), seed)


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
    """Write a method with the settings that a user chose: of OutRo, those of the command line."""
    from dataclasses import MISSING, fields

    from omnisink.methods.outro import OutRo
    from omnisink.methods.settings import to_plain

    if type(method) is OutRo:
        off = [f", {name}=False" for name in ("rotate", "relax", "decode") if not getattr(method, name)]
        return f"OutRo(gamma={method.gamma:g}, tau={method.tau:g}{''.join(off)})"
    unset = (MISSING, MISSING)
    chosen = [
        f"{one.name}={to_plain(getattr(method, one.name))}"
        for one in fields(method)
        if isinstance(getattr(method, one.name), int | float | str) or (one.default, one.default_factory) == unset
    ]
    return f"{type(method).__name__}({', '.join(chosen)})"


def load(model: str, loading: LoadingOptions = LOADING, *, about: Collection[Modality] = ()) -> Loaded:
    """Load what ``--model`` and its companions name, with a spinner and without the libraries' own noise.

    What the model is to be asked `about` beside text is checked first, against its configuration.
    """
    with working(f"loading {model}"):
        from omnisink.models.facts import check_can_answer
        from omnisink.models.loading import load_model

        check_can_answer(model, about)
        quiet()
        return load_model(model, **loading.for_loading())


def describe(loaded: Loaded) -> dict[str, Any]:
    """Say which weights ran and how, for a record."""
    return {
        "name": loaded.name,
        "weights": loaded.model.name_or_path,
        "source": loaded.source,
        "revision": loaded.revision,
        "class": type(loaded.model).__name__,
        "device": str(loaded.model.device),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "attention": loaded.model.config._attn_implementation,
    }


def token_texts(loaded: Loaded, ids: list[int]) -> list[str]:
    """Return each token as readable text, for tables and records."""
    return [loaded.tokenizer.decode([i]) for i in ids]


def versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    import platform

    import torch
    import transformers

    from omnisink import __version__

    return {
        "omnisink": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
