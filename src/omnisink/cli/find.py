"""`omnisink find`: the sinks of a text."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from omnisink.cli import options
from omnisink.cli.output import (
    check_writable,
    note,
    read_text,
    settings_checked,
    stdout,
    text,
    working,
    write_text,
)
from omnisink.errors import OmnisinkError


class CriterionName(str, Enum):
    """The criteria that have a name."""

    massive_activation = "massive_activation"
    sink_dimension = "sink_dimension"


def find(
    model: options.ModelOption,
    source: Annotated[str, typer.Option("--text", metavar="FILE", help="Text to run; - is standard input.")],
    criterion: Annotated[
        CriterionName, typer.Option(help="What makes a token a sink.")
    ] = CriterionName.massive_activation,
    channels: Annotated[
        str | None, typer.Option(metavar="LIST", help="The model's sink channels for sink_dimension, as 138,378.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="LIST", help="Layers to examine, as 0,5,6. [default: all but the last two]")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the text through the model's chat template.")] = False,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the sink map as JSON; - prints it instead.")
    ] = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = "auto",
    attn: options.AttentionOption = None,
    download: options.DownloadOption = False,
    trust_remote_code: options.RemoteCodeOption = False,
) -> None:
    """Show which tokens of a text are attention sinks, at which layers. One forward pass; nothing is changed."""
    wanted_channels = _numbers("--channels", channels)
    wanted_layers = _numbers("--layers", layers)
    prompt = read_text(source)
    if json not in (None, "-"):
        check_writable(str(json))
    with working("importing"):
        from omnisink.methods.criteria import resolve_criterion
        from omnisink.methods.find import find_sinks
    with settings_checked():
        marks = resolve_criterion(criterion.value, wanted_channels)
    loaded = options.load(
        model, device=device, dtype=dtype, attn=attn, download=download, trust_remote_code=trust_remote_code
    )
    _check_layers(wanted_layers, loaded.model.config.get_text_config(decoder=True).num_hidden_layers)
    if chat:
        inputs: dict[str, Any] = loaded.chat(prompt)
    else:
        encoded = loaded.tokenizer(prompt, return_tensors="pt")
        inputs = {name: encoded[name].to(loaded.model.device) for name in ("input_ids", "attention_mask")}
    with working(f"running {inputs['input_ids'].shape[1]} tokens"), settings_checked():
        found = find_sinks(loaded.model, criterion=marks, layers=wanted_layers, **inputs)
    tokens = options.token_texts(loaded, inputs["input_ids"][0].tolist())
    if json == "-":
        print(found.to_json(tokens))
        return
    stdout().print(text(found.table(tokens)))
    if json is not None:
        write_text(json, found.to_json(tokens) + "\n")
        note(f"written to {json}")


def _numbers(option: str, value: str | None) -> list[int] | None:
    """Read ``138,378``."""
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise OmnisinkError(f"{option} takes whole numbers separated by commas, got {value!r}") from None


def _check_layers(layers: list[int] | None, depth: int) -> None:
    outside = [layer for layer in layers or () if not 0 <= layer < depth]
    if outside:
        raise OmnisinkError(f"--layers names {outside}, but the model has layers 0 to {depth - 1}")
