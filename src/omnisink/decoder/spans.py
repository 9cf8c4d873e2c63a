"""Which tokens of a prompt are text, pictures, video and sound, as the ids say that stand in their places.

A decoder is given embeddings, in which a picture's tokens look like any others. The ids are what the outermost module
of the model was called with, so they are noted there while it runs, for methods that ask for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.arguments import find_argument
from omnisink.decoder.passes import Pass
from omnisink.errors import OmnisinkError, shown

#: What is not text.
MEDIA = ("image", "video", "audio")
#: With a modality, the key under which a cache keeps the tokens of it.
_SPANS = "spans"


def placeholder_ids(config: Any) -> dict[int, Any]:
    """Return the token ids that stand for media in a model's prompts, each with its modality.

    Parameters
    ----------
    config : PretrainedConfig
        Of the model, which names them, or has a part that does, such as that of its vision tower.

    Returns
    -------
    dict of int to str
        ``"image"``, ``"video"`` or ``"audio"`` by id; empty for a model of text.
    """
    found: dict[int, Any] = {}
    for modality in MEDIA:
        for name in (f"{modality}_token_id", f"{modality}_token_index"):
            if isinstance(token := getattr(config, name, None), int):
                found[token] = modality
    if not found:
        for part in getattr(type(config), "sub_configs", {}):
            for token, modality in placeholder_ids(getattr(config, part, None)).items():
                found.setdefault(token, modality)
    return found


def masks_of_spans(rows: Sequence[Sequence[Any]], length: int) -> dict[str, Tensor]:
    """Turn spans into masks.

    Parameters
    ----------
    rows : sequence of sequences of Span
        Spans of each of B sequences, with `modality`, `start` and `stop`.
    length : int
        Tokens S of each, padding counted.

    Returns
    -------
    dict of str to Tensor
        (B, S) bool by modality, in the order in which they first appear.

    Raises
    ------
    OmnisinkError
        If a span ends past the prompt.
    """
    masks: dict[str, Tensor] = {}
    for row, spans in enumerate(rows):
        for span in spans:
            if not 0 <= span.start < span.stop <= length:
                raise OmnisinkError(
                    f"a span of {span.modality} ends at {span.stop}, past the {length} tokens there are"
                )
            mask = masks.setdefault(span.modality, torch.zeros(len(rows), length, dtype=torch.bool))
            mask[row, span.start : span.stop] = True
    return masks


class PromptSpans:
    """Tokens of each modality in the prompts of one model, for one method on it.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder.
    name : str
        Of the method, for errors.
    given : sequence of sequences of Span, or mapping of str to Tensor, optional
        What is media in each prompt of the block, in place of what ids say: spans, or (B, S) bool by modality.
    """

    def __init__(self, anatomy: Anatomy, name: str, given: Any = None) -> None:
        self._name = name
        #: What the user said of the block's prompts; None where ids say it.
        self.given = given
        self._chain = _modules_around(anatomy)
        configs = (getattr(module, "config", None) for module in self._chain)
        self._placeholders = next((ids for config in configs if (ids := placeholder_ids(config))), {})
        #: What a thread's pass was called with, and by how many modules the one that it was given to is surrounded.
        self._ids: dict[int, tuple[int, Tensor]] = {}
        self._problem = ""

    def watch(self) -> Callable[[], None]:
        """Note ids from now on; the function that is returned ends it."""
        stack = ExitStack()
        if self.given is None and self._placeholders:
            for depth, module in enumerate(self._chain):
                stack.callback(module.register_forward_pre_hook(self._enter(depth, module), with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self._leave(depth), always_call=True).remove)
        return stack.close

    def _enter(self, depth: int, watched: nn.Module) -> Callable[..., None]:
        ids_of = find_argument(watched, "input_ids")

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            ids, thread = ids_of(args, kwargs), _thread()
            # A module inside may be given ids that the model has changed on the way.
            if module is watched and isinstance(ids, Tensor) and depth <= self._ids.get(thread, (depth,))[0]:
                self._ids[thread] = (depth, ids)

        return enter

    def _leave(self, depth: int) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._ids.get(thread := _thread(), (None,))[0] == depth:
                del self._ids[thread]

        return leave

    def keep(self, now: Pass) -> None:
        """Keep with the state of a prefill which of its tokens are of which modality."""
        masks = self._found(now)
        if masks is None:
            return
        # Padding is not text, and not a picture either, whatever stands there.
        real = torch.ones(now.batch, now.length, dtype=torch.bool) if now.token_mask is None else now.token_mask
        media = torch.zeros_like(real, device=now.device)
        for modality, mask in masks.items():
            own = mask.to(now.device) & real.to(now.device)
            now.state.tensors[_SPANS, modality] = own
            media = media | own
        now.state.tensors[_SPANS, "text"] = real.to(now.device) & ~media

    def of(self, now: Pass) -> dict[str, Tensor]:
        """Return what was kept of the prompts of a pass, (B, S) bool by modality.

        Raises
        ------
        OmnisinkError
            If neither ids nor the user said it when the prompts were read.
        """
        tensors = now.state.tensors
        kept = {one: tensors[_SPANS, one] for one in ("text", *MEDIA) if (_SPANS, one) in tensors}
        if not kept:
            raise OmnisinkError(
                f"{self._name} cannot tell which tokens are text and which are not: {self._problem}. Say it with "
                f"spans, as in: with {self._name}(...)(model, spans=loaded.spans(inputs))"
            )
        return kept

    def _found(self, now: Pass) -> dict[str, Tensor] | None:
        shape = (now.batch, now.length)
        if self.given is not None:
            return _repeated(self._given_masks(now.length), shape, self._name)
        if not self._placeholders:
            return {}
        _, ids = self._ids.get(_thread(), (0, None))
        if ids is None or ids.shape != shape:
            self._problem = (
                "the model was called without input_ids"
                if ids is None
                else f"input_ids of the shape {tuple(ids.shape)} have become a prompt of the shape {shape}"
            )
            return None
        masks: dict[str, Tensor] = {}
        for token, modality in self._placeholders.items():
            masks[modality] = masks[modality] | (ids == token) if modality in masks else ids == token
        return masks

    def _given_masks(self, length: int) -> dict[str, Tensor]:
        given = self.given
        if not isinstance(given, Mapping):
            if not isinstance(given, Sequence) or isinstance(given, str):
                raise OmnisinkError(f"spans must be what loaded.spans(inputs) returns, got {shown(given)}")
            rows = [given] if given and all(hasattr(one, "modality") for one in given) else given
            given = masks_of_spans(rows, length)
            given = given or {"text": torch.zeros(len(rows), length, dtype=torch.bool)}
        batch = max((len(mask) for mask in given.values()), default=1)
        empty = torch.zeros(batch, length, dtype=torch.bool)
        # One that the model takes, and that is not mentioned, has no tokens in these prompts.
        taken = {*given, *self._placeholders.values()}
        return {modality: torch.as_tensor(given.get(modality, empty)) for modality in MEDIA if modality in taken}

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptSpans:
        """Return itself: in a copy of the model it is what knows that this is a copy."""
        return self


def _repeated(masks: dict[str, Tensor], shape: tuple[int, int], name: str) -> dict[str, Tensor]:
    """Repeat masks of each prompt for its beams, or the answers that are made to it at a time."""
    for modality, mask in masks.items():
        if mask.dtype != torch.bool or mask.dim() != 2 or mask.shape[1] != shape[1] or shape[0] % len(mask):
            raise OmnisinkError(
                f"the spans of {modality} that {name} was given are {mask.dtype} of the shape {tuple(mask.shape)}, "
                f"and the prompt has the shape {shape}: give those of this prompt, with padding counted"
            )
    return {modality: mask.repeat_interleave(shape[0] // len(mask), dim=0) for modality, mask in masks.items()}


def _modules_around(anatomy: Anatomy) -> list[nn.Module]:
    """Return the modules that a call passes on its way to the text model, from the outermost to the text model."""
    named = dict(anatomy.model.named_modules())
    path = next(name for name, module in named.items() if module is anatomy.text_model)
    parts = path.split(".") if path else []
    return [named[".".join(parts[:count])] for count in range(len(parts) + 1)]


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()
