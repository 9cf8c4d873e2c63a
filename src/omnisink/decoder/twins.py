"""Run a model's pass again with other inputs, in step with the first, and combine the logits of both.

Contrastive decoding needs it: beside every pass that `generate`, or any other code, makes of a model, *twins* run: the
same model, with inputs of their own in the prefill, caches of their own, and whatever methods act in them only. A
decode step gives each twin the token that was chosen from the combined logits. The caches of twins live on the first
pass's cache, and follow it through beams and selections as all states do (`omnisink.decoder.caches`).
"""

from __future__ import annotations

import inspect
import threading
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from omnisink.decoder import refusals
from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.arguments import token_mask_of
from omnisink.decoder.branches import FIRST, current_branch, running_branch
from omnisink.decoder.caches import SequenceState, store_state, stored_state
from omnisink.decoder.passes import Pass, continues
from omnisink.decoder.rotary_offsets import Offsets, read_offsets, write_offsets

#: Inputs of a twin's prefill: from the arguments of the first pass, by name, to its own.
Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Combine(Protocol):
    """From the logits of all branches to those that are used."""

    @abstractmethod
    def __call__(self, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine logits (B, n, V) of the first pass and of its twins; the n last tokens are the same in all."""


@dataclass
class TwinState(SequenceState):
    """What the twins of the sequences of one cache go on from.

    Attributes
    ----------
    caches : list
        The cache of each twin; None where the model makes none.
    prompt_lengths : list of int
        Tokens of each twin's prompt, padding included.
    offsets : list
        What the model keeps of positions, for each twin; see `omnisink.decoder.rotary_offsets`.
    """

    caches: list[Any] = field(default_factory=list)
    prompt_lengths: list[int] = field(default_factory=list)
    offsets: list[Offsets] = field(default_factory=list)

    def select(self, index: Tensor) -> None:
        """Let the twins' caches follow, and what is kept beside them."""
        super().select(index)
        for cache in self.caches:
            cache.reorder_cache(index)  # An `index_select`, which also drops and repeats.

    def after_crop(self, held: Any) -> None:
        """Let the twins' caches forget as many tokens as the first pass's did."""
        super().after_crop(held)
        for cache, prompt in zip(self.caches, self.prompt_lengths, strict=True):
            if gone := int(cache.get_seq_length(self.layer)) - prompt - (int(held) - self.length):
                cache.crop(-gone)

    def __deepcopy__(self, memo: dict[int, Any]) -> TwinState:
        """Copy the caches with a copied cache."""
        copied = super().__deepcopy__(memo)
        assert isinstance(copied, TwinState)
        copied.caches = [deepcopy(cache, memo) for cache in self.caches]
        return copied


class Twins:
    """Twins of every pass of one model, for the length of a block.

    Parameters
    ----------
    anatomy : Anatomy
        The model. Its head has to be called in every pass; an `UnsupportedModelError` refuses one without a head.
    changes : sequence of callable
        For each twin, its inputs; those that it does not return are the first pass's. What it is given has the token
        mask (B, S) as ``attention_mask``, also where `generate` has prepared another; only a twin that hides other
        tokens, or has more or fewer of them, returns one.
    combine : callable
        From the logits of all branches to those that are used.
    owner : hashable
        Whose twins these are.
    """

    def __init__(self, anatomy: Anatomy, changes: Sequence[Change], combine: Combine, owner: Hashable) -> None:
        self._model, self._layer = find_head(anatomy), min(anatomy.attention)
        self._text_config = anatomy.text_model.config
        self._changes, self._combine = list(changes), combine
        self._owner = ("twins", owner)
        self._signature = inspect.signature(type(self._model).forward)
        self._empty: list[Any] = []
        self._prefill = True
        self._lock = threading.RLock()
        self._entered = False

    def attach(self) -> Callable[[], None]:
        """Begin, and return what ends it."""
        # What is compiled of the model is the first pass; twins run beside its graph.
        hooks = [
            self._model.register_forward_pre_hook(torch.compiler.disable(self._before), with_kwargs=True),
            self._model.register_forward_hook(torch.compiler.disable(self._after), with_kwargs=True),
            self._model.register_forward_hook(torch.compiler.disable(self._leave), always_call=True),
        ]

        def stop() -> None:
            for hook in hooks:
                hook.remove()

        return stop

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name."""
        bound = self._signature.bind_partial(self._model, *args, **kwargs).arguments
        named = {name: value for name, value in bound.items() if name != next(iter(self._signature.parameters))}
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                named.update(named.pop(name, {}))
        return named

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the pass is, while its cache is as it was."""
        if current_branch() != FIRST:
            return
        self._lock.acquire()  # Other threads wait until the twins of this pass have run too.
        self._entered = True
        cache = self._named(args, kwargs).get("past_key_values")
        self._prefill = not continues(cache, self._layer, self._owner)
        self._empty = [None if cache is None or not self._prefill else deepcopy(cache) for _ in self._changes]

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Run the twins of the pass that has come to its end, and combine."""
        if current_branch() != FIRST:
            return None
        if not isinstance(getattr(output, "logits", None), Tensor):
            raise refusals.no_logits(type(module).__name__)
        own = self._named(args, kwargs)
        own.pop("labels", None)
        offsets = read_offsets(module)
        try:
            logits = self._run_prefills(own, output) if self._prefill else self._run_steps(own, output)
        finally:
            write_offsets(offsets)
        length = output.logits.shape[1]
        # Prompts of other lengths have only their end in common.
        shared = length if all(one.shape[1] == length for one in logits) else 1
        rows = self._combine(output.logits[:, -shared:], [one[:, -shared:] for one in logits])
        before = output.logits[:, : length - shared]
        output.logits = torch.cat([before, rows], dim=1) if before.shape[1] else rows
        return output

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Let other threads in, also after an error, unless that came before this pass was noted."""
        if current_branch() == FIRST and self._entered:
            self._entered = False
            self._lock.release()

    def _run_prefills(self, own: dict[str, Any], output: Any) -> list[Tensor]:
        """Run the twins' prompts, and keep on the first pass's cache what their next steps need."""
        first = _prompt(own)
        batch, length = first.shape[:2]
        cache = getattr(output, "past_key_values", None)
        state = TwinState(batch, length=length, layer=self._layer)
        told = {**own, "attention_mask": _token_mask(own)}
        logits = []
        for number, (change, empty) in enumerate(zip(self._changes, self._empty, strict=True), start=1):
            changed = change(told)
            inputs = {**own, **changed, "past_key_values": empty}
            same_tokens = _prompt(inputs).shape[1] == length and "attention_mask" not in changed
            if not same_tokens:
                inputs = _placed_anew(inputs, changed)
                # A static cache has room for the first pass's prompt only.
                if getattr(empty, "is_compileable", False):
                    inputs["past_key_values"] = DynamicCache(config=self._text_config)
            with running_branch(number):
                ran = self._model(**inputs)
            logits.append(ran.logits)
            state.caches.append(getattr(ran, "past_key_values", None))
            state.prompt_lengths.append(_prompt(inputs).shape[1])
            state.offsets.append(read_offsets(self._model))
            if not same_tokens:
                state.tensors["mask", number] = _token_mask(inputs)
                state.tensors["ahead", number] = _ahead(own, inputs)
        self._empty = []
        if cache is not None:
            store_state(cache, self._owner, state)
        return logits

    def _run_steps(self, own: dict[str, Any], output: Any) -> list[Tensor]:
        """Give every twin the tokens of the first pass."""
        state = stored_state(output.past_key_values, self._owner)
        assert isinstance(state, TwinState)
        logits = []
        for number, cache in enumerate(state.caches, start=1):
            inputs = {**own, "past_key_values": cache}
            if (mask := state.tensors.get(("mask", number))) is not None:
                grown = int(cache.get_seq_length(self._layer)) - mask.shape[1]
                inputs = _later(inputs, mask, grown, state.tensors["ahead", number], state.length)
            write_offsets(state.offsets[number - 1])
            with running_branch(number):
                logits.append(self._model(**inputs).logits)
        return logits


def find_head(anatomy: Anatomy) -> nn.Module:
    """Return the outermost module around the decoder that has a language model's head, and so returns logits."""
    for module in anatomy.model.modules():
        embeddings = getattr(module, "get_output_embeddings", None)
        if (
            callable(embeddings)
            and embeddings() is not None
            and any(m is anatomy.text_model for m in module.modules())
        ):
            return module
    raise refusals.no_head(type(anatomy.model).__name__)


def _prompt(inputs: Mapping[str, Any]) -> Tensor:
    """Return what says how many tokens enter: ids (B, S), or embeddings (B, S, d)."""
    for name in ("input_ids", "inputs_embeds"):
        if isinstance(inputs.get(name), Tensor):
            found: Tensor = inputs[name]
            return found
    raise refusals.no_prompt(sorted(inputs))


def _token_mask(inputs: Mapping[str, Any]) -> Tensor:
    """Return the token mask of a prompt, (B, S) long, also where its attention mask is prepared already."""
    prompt, given = _prompt(inputs), inputs.get("attention_mask")
    batch, length = prompt.shape[:2]
    if not (isinstance(given, Tensor) and given.dim() == 2):
        given = token_mask_of(given, Pass(True, batch, length, prompt.device, None, SequenceState(batch)))
    return prompt.new_ones((batch, length), dtype=torch.long) if given is None else given.long()


def _placed_anew(inputs: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Count the positions of a prompt that is not the first pass's, where its change does not say them."""
    given = inputs.get("position_ids")
    inputs.pop("cache_position", None)
    if "position_ids" not in changed and isinstance(given, Tensor):
        # With media, only the model can count: it does so where it is not given any.
        inputs["position_ids"] = (_token_mask(inputs).cumsum(dim=-1) - 1).clamp(min=0) if given.dim() == 2 else None
    return inputs


def _ahead(own: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
    """Return (B, 2): by how many positions a twin's next token is ahead of the first pass's, in text and in media."""
    before, after = own.get("position_ids"), inputs.get("position_ids")
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        moved = after[..., -1] - before[..., -1]
        return torch.stack([moved, moved], dim=-1) if moved.dim() == 1 else torch.stack([moved[0], moved[-1]], dim=-1)
    longer = _token_mask(inputs).sum(dim=-1) - _token_mask(own).sum(dim=-1)
    return torch.stack([longer, longer], dim=-1)


def _later(inputs: dict[str, Any], mask: Tensor, grown: int, ahead: Tensor, prompt_length: int) -> dict[str, Any]:
    """Turn the arguments of the first pass's step into those of a twin whose prompt is another.

    Its prompt has the token mask `mask` (B, S'), and `grown` tokens have followed it.
    """
    given = inputs.get("attention_mask")
    if isinstance(given, Tensor):
        # Where it is prepared for a static cache already, nothing of what was generated is hidden.
        later = (
            given[:, prompt_length:]
            if given.dim() == 2
            else mask.new_ones(len(mask), grown + _prompt(inputs).shape[1])
        )
        inputs["attention_mask"] = torch.cat([mask, later.to(mask)], dim=-1)
    places = inputs.get("position_ids")
    if isinstance(places, Tensor):
        text, media = ahead[:, :1], ahead[:, 1:]
        if places.dim() == 2:
            inputs["position_ids"] = places + text
        else:  # (4, B, n): text, time, height, width; (3, B, n), without text; (1, B, n), one for these three.
            rows = places.shape[0]
            shift = torch.stack([text] * (rows == 4) + [media] * min(rows, 3))
            inputs["position_ids"] = places + shift
    if isinstance(inputs.get("cache_position"), Tensor):
        inputs["cache_position"] = inputs["cache_position"] + (mask.shape[1] - prompt_length)
    return inputs
