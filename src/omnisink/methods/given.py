"""What a user gives for a model and for a prompt: the objects and texts that stand for them, and the usual slips."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder.anatomy import as_written
from omnisink.decoder.intervention import Intervention
from omnisink.errors import OmnisinkError, shown
from omnisink.models.adapters.spans import Span
from omnisink.models.loaded import Loaded
from omnisink.questions.prompt import Encoded

#: What the calls themselves take, beside the inputs of a model.
_OWN = ("prompt", "criterion", "channels", "layers", "sets", "spans", "others", "received")


def model_of(given: Any, call: str) -> nn.Module:
    """Return the model in what was given for one.

    Parameters
    ----------
    given : object
        A model, what `load_model` returned, or a pipeline of transformers.
    call : str
        What it was given to, as an error writes it: ``"find_sinks(...)"``.

    Returns
    -------
    nn.Module
        The model.

    Raises
    ------
    OmnisinkError
        If there is none in it; the message says what to write instead.
    """
    if isinstance(given, nn.Module):
        return given
    held = getattr(given, "model", None)
    if isinstance(held, nn.Module):
        return held
    raise OmnisinkError(f"{call} takes a model, and was given {_what(given)}")


def run_of(given: Any, model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Run a model once: what `load_model` returned runs as its adapter says, anything else is called."""
    return given.adapter.forward(given, inputs) if isinstance(given, Loaded) else model(**inputs)


def holds_model(given: Any) -> bool:
    """Whether something is a model, or an object around one, as a pipeline is."""
    return isinstance(given, nn.Module) or isinstance(getattr(given, "model", None), nn.Module)


def layers_of(layers: Any, call: str) -> tuple[int, ...] | None:
    """Return the layers that were named, one or several; None is all that the call looks at by itself."""
    if layers is None:
        return None
    named = [layers] if isinstance(layers, int) and not isinstance(layers, bool) else layers
    try:
        return tuple(index(layer) for layer in named)
    except TypeError:
        raise OmnisinkError(f"{call} takes layers as whole numbers, as layers=[11, 12], got {shown(layers)}") from None


def inputs_of(given: Any, prompt: Any, inputs: Mapping[str, Any], call: str) -> dict[str, Any]:
    """Return what the model's forward pass takes.

    Parameters
    ----------
    given : object
        As for `model_of`. What `load_model` returned turns texts into prompts as its `inputs` does, chat template and
        media included; a pipeline turns them into tokens as they are.
    prompt : str, sequence of str, mapping, Tensor or None
        Texts, inputs by name, or (B, S) token ids.
    inputs : mapping
        Further inputs by name; with texts and what `load_model` returned, what `Loaded.inputs` takes.
    call : str
        As for `model_of`.

    Returns
    -------
    dict
        Inputs by name; an `Encoded` where `Loaded.inputs` made them.

    Raises
    ------
    OmnisinkError
        If there is no prompt, or it cannot be made of what was given.
    """
    _refuse_misspelt(given, inputs, call)
    if isinstance(prompt, Mapping):
        if twice := prompt.keys() & inputs.keys():
            raise OmnisinkError(f"{call} was given {', '.join(sorted(twice))} twice, in the prompt and by name")
        if isinstance(prompt, Encoded):
            return prompt.with_data({**prompt, **inputs})
        return {**prompt, **inputs}
    if isinstance(prompt, Tensor):
        if prompt.dim() != 2 or prompt.is_floating_point():
            raise OmnisinkError(
                f"{call} takes token ids of the shape (batch, tokens), got {prompt.dtype} of {tuple(prompt.shape)}; "
                "give one sequence as ids[None]"
            )
        return {"input_ids": prompt, **inputs}
    if prompt is None:
        if not inputs:
            raise OmnisinkError(
                f"{call} needs a prompt: give it a text, where the first argument is what load_model returned or a "
                'pipeline, or the inputs of the model, as **tokenizer("Why is the sea salty?", return_tensors="pt")'
            )
        return dict(inputs)
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise OmnisinkError(
            f"{call} takes a prompt that is a text, a list of texts, a tensor of token ids, or inputs by name, got "
            f"{shown(prompt)}; of chat "
            "messages, give what the tokenizer's apply_chat_template(..., return_dict=True) returns"
        )
    if isinstance(given, Loaded):
        return _asked(given, prompt, inputs, call)
    return {**_tokens(given, list(texts), call), **inputs}


def _refuse_misspelt(given: Any, inputs: Mapping[str, Any], call: str) -> None:
    """Refuse what is nearly an argument of the call: most models take any name, and do nothing with it."""
    written = as_written(model_of(given, call))
    known = inspect.signature(type(written).forward).parameters if isinstance(written, nn.Module) else {}
    for name in inputs.keys() - known:
        if close := get_close_matches(name, _OWN, n=1, cutoff=0.8):
            raise OmnisinkError(f"{call} was given {name}=, which it does not take: did you mean {close[0]}=?")


def spans_of(given: Any, inputs: Mapping[str, Any]) -> list[list[Span]] | None:
    """Return the spans of prompts that `Loaded.inputs` made; None where they are not known."""
    return given.spans(inputs) if isinstance(given, Loaded) and isinstance(inputs, Encoded) else None


def _asked(loaded: Loaded, prompt: Any, inputs: Mapping[str, Any], call: str) -> dict[str, Any]:
    known = inspect.signature(loaded.inputs).parameters.keys() - {"question"}
    if unknown := inputs.keys() - known:
        raise OmnisinkError(
            f"{call} was given a text and {', '.join(sorted(unknown))}; beside a text it takes "
            f"{', '.join(sorted(known))}"
        )
    return loaded.inputs(prompt, **inputs)


def _tokens(given: Any, texts: list[str], call: str) -> dict[str, Any]:
    """Turn texts into tokens with the tokenizer of a pipeline, padded on the left."""
    tokenizer, model = getattr(given, "tokenizer", None), model_of(given, call)
    if tokenizer is None:
        raise OmnisinkError(
            f"{call} was given a text and a {type(given).__name__}, which has no tokenizer: give what load_model "
            'returned, a pipeline, or the inputs, as **tokenizer(text, return_tensors="pt")'
        )
    if len(texts) > 1 and tokenizer.pad_token_id is None:
        raise OmnisinkError(
            "the tokenizer has no padding token, so its texts make no batch: give one text at a time, or set "
            "tokenizer.pad_token = tokenizer.eos_token"
        )
    made = dict(tokenizer(texts, return_tensors="pt", padding=len(texts) > 1, padding_side="left"))
    names = inspect.signature(type(as_written(model)).forward).parameters
    if "token_type_ids" not in names:
        made.pop("token_type_ids", None)
    if not made["input_ids"].numel():
        raise OmnisinkError(f"{call} was given the text {shown(texts[0])}, which makes no tokens")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return {name: value.to(device) for name, value in made.items()}


def _what(given: Any) -> str:
    """Say what something is that is no model, and what to write instead."""
    name = type(given).__name__
    if isinstance(given, Intervention):
        return f"the method {name}: put it on the model around the call, as with {name}(...)(model):"
    if isinstance(given, type):
        return f"the class {given.__name__}: load the model first, as {given.__name__}.from_pretrained(...)"
    if isinstance(given, str):
        return f"the text {shown(given)}: load the model first, as load_model({shown(given)})"
    if callable(getattr(given, "decode", None)) or hasattr(given, "image_processor"):
        kind = "processor" if "rocessor" in name else "tokenizer"
        return f"a {kind}, {name}: give the model that it belongs to, or what load_model returned"
    kind = "None" if given is None else f"an object of the type {name}"
    return f"{kind}: give a transformers model, what load_model returned, or a pipeline"
