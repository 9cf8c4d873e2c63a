"""`omnisink find`: the sinks of a clip with a question, or of a text."""

from __future__ import annotations

from enum import Enum
from json import dumps, loads
from typing import Annotated, Any

import typer

from omnisink.cli import media, method_options, options
from omnisink.cli.grouped import grouped
from omnisink.cli.output import (
    check_writable,
    note,
    print_json,
    read_text,
    settings_checked,
    stdout,
    text,
    working,
    write_text,
)
from omnisink.cli.preflight import check_model, check_there
from omnisink.errors import OmnisinkError


class CriterionName(str, Enum):
    """The criteria that have a name."""

    massive_activation = "massive_activation"
    sink_dimension = "sink_dimension"


@grouped
def find(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE QUESTION]", help="A video, sound or image file, and a question about it."),
    ] = None,
    model: options.ModelOption = "smolomni",
    source: Annotated[
        str | None, typer.Option("--text", metavar="FILE", help="Text to run instead; - is standard input.")
    ] = None,
    files: media.MediaOptions = media.MEDIA,
    criterion: Annotated[
        CriterionName, typer.Option(help="What makes a token a sink.")
    ] = CriterionName.massive_activation,
    channels: Annotated[
        str | None, typer.Option(metavar="LIST", help="The model's sink channels for sink_dimension, as 138,378.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="LIST", help="Layers to examine, as 0,5,6. [default: all but the last two]")
    ] = None,
    method: method_options.MethodOption = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the text through the model's chat template.")] = False,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write the sink map as JSON.")] = None,
    json: options.JsonFlag = False,
    loading: options.LoadingOptions = options.LOADING,
) -> None:
    """Show which tokens of a clip and a question, or of a text, are attention sinks, at which layers.

    With --method, they are the sinks while that method acts on the model.
    """
    wanted_channels = _numbers("--channels", channels)
    wanted_layers = _numbers("--layers", layers)
    if json and words and len(words) == 1:
        raise OmnisinkError(f"--json prints, and takes no file: {words[0]} goes after --out")
    if (source is None) == (not words):
        raise OmnisinkError("give either a file and a question, or a text with --text")
    if words and len(words) != 2:
        raise OmnisinkError(f"expected a file and a question in quotation marks, got {len(words)} arguments")
    file, question = media.split_words(words) if words else (None, "")
    if files.system is not None and not (words or chat):
        raise OmnisinkError("--system goes with a question, or with --text and --chat")
    if files.audio is not None and not words:
        raise OmnisinkError("--audio goes with a file and a question, not with --text")
    asked, about = media.check_media(file, files)
    prompt = question if source is None else read_text(source)
    from_method = None if method is None else method_options.make_method(method, model)
    if out is not None:
        check_writable(out)
    check_there(model, loading.download)
    media.check_heard(model, asked)
    with working("importing"):
        from omnisink.decoder.anatomy import read_anatomy
        from omnisink.methods.criteria import resolve_criterion
        from omnisink.methods.find import find_sinks
        from omnisink.methods.registry import settings_of
        from omnisink.models.adapters.asking import attached
        from omnisink.models.context import check_context
    with settings_checked():
        marks = resolve_criterion(criterion.value, wanted_channels)
    check_model(model, loading.device, loading.dtype, wanted_layers or ())
    loaded = options.load(model, loading, about=about)
    anatomy = read_anatomy(loaded.model)
    if wanted_layers is not None:
        _check_layers(wanted_layers, len(anatomy.layers))
    spans = None
    inputs: dict[str, Any]
    with media.warnings_noted():
        if words or chat:
            inputs = encoded = loaded.inputs(prompt, system=files.system, **asked)
            spans = loaded.spans(encoded)[0] if words else None
        else:
            encoded = loaded.tokenizer(prompt, return_tensors="pt")
            check_context(loaded, encoded)
            inputs = {name: encoded[name].to(loaded.model.device) for name in ("input_ids", "attention_mask")}
    block = attached(from_method, loaded, inputs)
    with working(f"running {inputs['input_ids'].shape[1]} tokens"), settings_checked(), block:
        found = find_sinks(loaded, inputs, criterion=marks, layers=wanted_layers)
    tokens = options.token_texts(loaded, inputs["input_ids"][0].tolist())
    said: dict[str, Any] = {} if from_method is None else {"method": settings_of(from_method)}
    if anatomy.path:
        said["decoder"] = anatomy.path
    if getattr(inputs, "modalities", None) is not None:
        said["positions"] = options.EMBEDDED
    said |= options.media_tokens(loaded, inputs)
    data, counts = found.to_json(tokens), None
    if said and spans is None:
        data = dumps({**loads(data), **said}, ensure_ascii=False)
    if spans is not None:
        from dataclasses import asdict

        from omnisink.methods.modality import count_by_modality, label_tokens

        counts = count_by_modality(found, spans)
        data = dumps(
            {
                **loads(data),
                **said,
                "spans": [asdict(span) for span in spans],
                "by_modality": [asdict(count) for count in counts],
            },
            ensure_ascii=False,
        )
        tokens = label_tokens(tokens, spans)
    if json:
        print_json(loads(data))
    else:
        if from_method is not None:
            stdout().print(text(f"with {method_options.brief(from_method)} attached:\n"))
        stdout().print(text(found.table(tokens)))
        if counts is not None:
            stdout().print(text("\n" + media.summary(counts)))
        if anatomy.path:
            note(f"the language model is model.{anatomy.path}")
        if getattr(inputs, "modalities", None) is not None:
            note(f"positions count {options.EMBEDDED}")
        if "media_tokens" in said:
            note(f"media tokens: {said['media_tokens']}")
    if out is not None:
        write_text(out, data + "\n")
        note(f"written to {out}")


def _numbers(option: str, value: str | None) -> list[int] | None:
    """Read ``138,378``."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise OmnisinkError(f"{option} takes whole numbers separated by commas, got {value!r}") from None


def _check_layers(layers: list[int], depth: int) -> None:
    outside = [layer for layer in layers if not 0 <= layer < depth]
    if outside:
        raise OmnisinkError(f"--layers names {outside}, but the model has layers 0 to {depth - 1}")
