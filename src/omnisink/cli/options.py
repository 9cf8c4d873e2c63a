"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli.media import warnings_noted
from omnisink.cli.output import quiet, working
from omnisink.errors import OmnisinkError, shown
from omnisink.models.provenance import describe as describe
from omnisink.models.provenance import versions as versions

if TYPE_CHECKING:
    from omnisink.models.adapters.spans import Modality
    from omnisink.models.loaded import Loaded
    from omnisink.questions.prompt import Encoded

#: What every generator of random numbers takes that a seed is given to: NumPy's and Optuna's take 32 bits.
LARGEST_SEED = 2**32 - 1

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="smolomni, smollm2-135m, a local folder, a GGUF file, or a name on the Hub.",
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


#: The group with nothing said.
LOADING = LoadingOptions()


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


def load(model: str, loading: LoadingOptions = LOADING, *, about: Collection[Modality] = ()) -> Loaded:
    """Load what ``--model`` and its companions name, with a spinner and without the libraries' own noise.

    What the model is to be asked `about` beside text is checked first, against its configuration.
    """
    with working(f"loading {model}"), warnings_noted():
        from omnisink.models.facts import check_can_answer
        from omnisink.models.loading import load_model

        check_can_answer(model, about)
        quiet()
        return load_model(model, **loading.for_loading())


def token_texts(loaded: Loaded, ids: list[int]) -> list[str]:
    """Return each token as readable text, for tables and records."""
    return [loaded.tokenizer.decode([i]) for i in ids]


#: What positions count where one id can stand for many tokens.
EMBEDDED = "embedded tokens, as the decoder reads them, and not ids of the prompt"

#: What is said of a model whose prompts have no tokens of media.
NO_MEDIA_TOKENS = "none: this model takes media as one vector beside the prompt, and all spans are of text"


def media_tokens(loaded: Loaded, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return what is said where a question's media have no tokens in its prompt; else nothing."""
    asked = any(any(prompt.media) for prompt in getattr(inputs, "prompts", ()))
    return {"media_tokens": NO_MEDIA_TOKENS} if asked and not loaded.adapter.media_are_tokens else {}


def prompt_tokens(loaded: Loaded, inputs: Encoded) -> list[str]:
    """Return each token of a prompt as readable text; media that no id stands for are named by their time."""
    from omnisink.methods.modality import label_tokens

    tokens = token_texts(loaded, inputs["input_ids"][0].tolist())
    return tokens if inputs.modalities is None else label_tokens(tokens, loaded.spans(inputs)[0])
