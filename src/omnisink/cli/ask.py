"""`omnisink ask`: a question to a model under a method, OutRo unless another is named."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import media, method_options, options
from omnisink.cli.grouped import grouped
from omnisink.cli.output import note, print_json, read_text, stdout, working
from omnisink.cli.preflight import check_model, check_there
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.methods.base import Method
    from omnisink.methods.trace import Trace
    from omnisink.models.adapters.asking import Answer
    from omnisink.models.loaded import Loaded
    from omnisink.questions.prompt import Encoded


@dataclass(frozen=True)
class GenerationOptions:
    """How long an answer may be, and whether its tokens are drawn at random."""

    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens at random instead of the likeliest.")] = False
    temperature: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Temperature of sampling; implies --sample.")
    ] = None
    seed: Annotated[
        int, typer.Option(min=0, max=options.LARGEST_SEED, help="Seed of sampling, the same for both answers.")
    ] = 0

    def flags(self) -> dict[str, Any]:
        """Return them as ``generate`` takes them.

        Raises
        ------
        OmnisinkError
            If the temperature is not a positive number.
        """
        if self.temperature is None:
            return {"max_new_tokens": self.max_new_tokens, "do_sample": self.sample}
        if not 0 < self.temperature < float("inf"):
            raise OmnisinkError(f"--temperature must be a positive number, got {self.temperature}")
        return {"max_new_tokens": self.max_new_tokens, "do_sample": True, "temperature": self.temperature}


#: The group with nothing said.
GENERATION = GenerationOptions()


@grouped
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] QUESTION",
            help="A video, sound or image file, if any, and the question; - reads it from standard input.",
        ),
    ] = None,
    model: options.ModelOption = "smolomni",
    choices: media.ChoicesOption = None,
    files: media.MediaOptions = media.MEDIA,
    method: method_options.MethodOption = None,
    outro: method_options.OutRoOptions = method_options.OUTRO_OPTIONS,
    compare: Annotated[bool, typer.Option("--compare", help="Answer without the method first.")] = False,
    generation: GenerationOptions = GENERATION,
    loading: options.LoadingOptions = options.LOADING,
    json: options.JsonFlag = False,
) -> None:
    """Ask a model about a video, a sound, an image or nothing at all, under a method; the answer comes as it is made.

    The method is OutRo unless --method names another, or baseline. --gamma, --tau, --no-rotate, --no-relax and
    --no-decode are settings of OutRo.
    """
    flags, seed = generation.flags(), generation.seed
    file, question = media.split_words(words or (), choices)
    if question == "-":
        question = read_text("-")
    if not question.strip():
        raise OmnisinkError("the question is empty")
    from omnisink.questions.choices import check_choices

    named = check_choices(choices)
    asked, about = media.check_media(file, files)
    check_there(model, loading.download)
    media.check_heard(model, asked)
    chosen = method_options.make_method(method, model, seed, outro)
    if compare and chosen is None:
        raise OmnisinkError("--compare answers with and without the method: the baseline is not a method to compare")
    check_model(model, loading.device, loading.dtype)
    loaded = options.load(model, loading, about=about)
    with working("reading the question"), media.warnings_noted():
        inputs = loaded.inputs(question, choices=named or None, system=files.system, **asked)
    without = None
    if compare:
        name = "OutRo" if method is None else method
        without = _answer(loaded, inputs, None, flags, seed, None if json else f"without {name}")
    heading = f"with {method_options.brief(chosen)}" if compare and chosen is not None else ""
    said = _answer(loaded, inputs, chosen, flags, seed, None if json else heading)
    if not json:
        if said.choice:
            note(f"{said.choice} is {named[ord(said.choice) - ord('A')]!r}")
        note(_summary(said.trace, chosen))
        return
    tokens = options.prompt_tokens(loaded, inputs)
    from omnisink.methods.registry import settings_of

    print_json(
        {
            "format": "omnisink.ask.v1",
            "model": options.describe(loaded),
            "method": settings_of(chosen),
            "generation": {**flags, "seed": seed if flags["do_sample"] else None},
            "question": question,
            "choices": list(named) or None,
            "choice": said.choice,
            "media": asdict(said.facts),
            "system": files.system,
            "prompt_tokens": len(tokens),
            **({} if inputs.modalities is None else {"positions": options.EMBEDDED}),
            **options.media_tokens(loaded, inputs),
            "answer": said.text,
            "answer_without": None if without is None else without.text,
            **({"decoder": said.trace.decoder} if said.trace is not None and said.trace.decoder else {}),
            **_reported(said.trace, tokens),
            "versions": options.versions(),
        }
    )


def _answer(
    loaded: Loaded,
    inputs: Encoded,
    method: Method | None,
    flags: dict[str, Any],
    seed: int,
    heading: str | None,
) -> Answer:
    """Generate one answer; with a heading, even an empty one, it is written to stdout as it is made."""
    import torch
    from transformers import TextStreamer

    from omnisink.models.adapters.asking import answer

    streamer = None
    if heading is not None:
        if heading:
            stdout().print(f"[bold]{heading}[/]")
        streamer = TextStreamer(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
    torch.manual_seed(seed)
    waiting: AbstractContextManager[Any] = nullcontext() if streamer else working("answering")
    with waiting, media.warnings_noted():
        (made,) = answer(loaded, inputs, method=method, streamer=streamer, **flags)
    if heading:
        stdout().print()
    return made


def _reported(trace: Trace | None, tokens: list[str]) -> dict[str, Any]:
    """Return what a trace says of the prompt, as plain data; nothing was found or done without a method."""
    if trace is None:
        return {"sinks": {}, "rotated_tokens": {}, "relaxed": [], "skipped_layers": {}}
    return {
        "sinks": {
            str(layer): [{"position": p, "token": tokens[p]} for p in trace.sinks.positions(layer)]
            for layer in trace.sinks.layers
        },
        "rotated_tokens": {},
        "relaxed": [],
        **trace.changes(),
        "skipped_layers": trace.skipped_layers,
    }


def _summary(trace: Trace | None, method: Method | None) -> str:
    """Say in one line what the method did, or each method of a composition."""
    from omnisink.methods.composed import Composed
    from omnisink.methods.composed_trace import ComposedTrace
    from omnisink.methods.outro import OutRo

    if trace is None or method is None:
        return "the baseline: no method ran"
    if isinstance(method, Composed) and isinstance(trace, ComposedTrace):
        parts = zip(method.methods, trace.traces, strict=True)
        return "; ".join(
            f"{type(one).__name__}: {_summary(own, one)}" if one.criterion_settings() else _summary(own, one)
            for one, own in parts
        )
    changes, outro = trace.changes(), isinstance(method, OutRo)
    rotated, relaxed = changes.get("rotated_tokens", {}), changes.get("relaxed", [])
    if trace.sinks.layers:
        line = f"sinks at layers {_spans(trace.sinks.layers)}"
    elif outro:
        return "no sink was found in the prompt: the answer is that of the baseline"
    elif method.criterion_settings():
        line = "no sink was found in the prompt"
    else:
        line = f"{method_options.brief(method)} ran; it looks for no sinks"
    if rotated:
        line += f"; {max(rotated.values())} tokens rotated at {len(rotated)} layers"
    if relaxed:
        line += f"; rows relaxed: {len(relaxed)}"
    if outro and not rotated and not relaxed:
        line += "; nothing was changed"
    if trace.skipped_layers:
        line += (
            f"; layers {_spans(sorted(trace.skipped_layers))} left out: {next(iter(trace.skipped_layers.values()))}"
        )
    return line


def _spans(layers: list[int]) -> str:
    """Write 3, 4, 5, 9 as ``3-5, 9``."""
    groups: list[list[int]] = []
    for layer in layers:
        if groups and groups[-1][-1] == layer - 1:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return ", ".join(str(g[0]) if len(g) == 1 else f"{g[0]}-{g[-1]}" for g in groups)
