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
from contextlib import ExitStack
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from omnisink.decoder import refusals
from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.branches import FIRST, TOGETHER, current_branch, running_branch
from omnisink.decoder.caches import store_state, stored_state
from omnisink.decoder.passes import continues
from omnisink.decoder.replay import share
from omnisink.decoder.rotary_offsets import Offsets, offsets_in_one, read_offsets, write_offsets
from omnisink.decoder.twin_inputs import (
    ahead_of,
    is_free_to_read,
    placed_anew,
    prompt_mask,
    prompt_of,
    side_by_side,
    step_inputs,
)
from omnisink.decoder.twin_state import TwinState

#: Inputs of a twin's prefill: from the arguments of the first pass, by name, to its own.
Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Combine(Protocol):
    """From the logits of all branches to those that are used."""

    @abstractmethod
    def __call__(self, first: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Combine logits (B, n, V) of the first pass and of its twins; the n last tokens are the same in all."""


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
    layers : int
        Number of layers, from the first, that do in a twin's prompt what they do in the first pass's, so that it need
        not run them. Towers are shared in any case, where they are given the same.
    """

    def __init__(
        self, anatomy: Anatomy, changes: Sequence[Change], combine: Combine, owner: Hashable, layers: int = 0
    ) -> None:
        self._anatomy, self._layers = anatomy, layers
        self._model, self._layer = find_head(anatomy), min(anatomy.attention)
        self._text_config = anatomy.text_model.config
        self._changes, self._combine = list(changes), combine
        self._owner = ("twins", owner)
        self._signature = inspect.signature(type(self._model).forward)
        self._empty: list[Any] = []
        self._prefill = True
        self._lock = threading.RLock()
        self._entered = False
        self._sharing = ExitStack()

    def attach(self) -> Callable[[], None]:
        """Begin, and return what ends it."""
        # What is compiled of the model is the first pass; twins run beside its graph.
        before = torch.compiler.disable(self._before)

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            before(module, torch.compiler.is_compiling(), args, kwargs)

        hooks = [
            self._model.register_forward_pre_hook(enter, with_kwargs=True),
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

    def _is_first_pass(self, module: nn.Module) -> bool:
        """Whether a pass is the model's own: not a twin's, and not one of a copy, which has the hooks too."""
        return module is self._model and current_branch() == FIRST

    def _before(self, module: nn.Module, compiled: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the pass is, while its cache is as it was."""
        if not self._is_first_pass(module):
            return
        self._lock.acquire()  # Other threads wait until the twins of this pass have run too.
        self._entered = True
        named = self._named(args, kwargs)
        cache = named.get("past_key_values")
        self._prefill = not continues(cache, self._layer, self._owner)
        self._empty = [None if cache is None or not self._prefill else deepcopy(cache) for _ in self._changes]
        # What is equal is found by reading tensors.
        if self._prefill and self._changes and not compiled and is_free_to_read(prompt_of(named)):
            self._sharing.enter_context(share(self._anatomy, self._layers))

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Run the twins of the pass that has come to its end, and combine."""
        if not self._is_first_pass(module):
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
            self._sharing.close()
        length = output.logits.shape[1]
        # Prompts of other lengths have only their end in common.
        shared = length if all(one.shape[1] == length for one in logits) else 1
        rows = self._combine(output.logits[:, -shared:], [one[:, -shared:] for one in logits])
        before = output.logits[:, : length - shared]
        output.logits = torch.cat([before, rows], dim=1) if before.shape[1] else rows
        return output

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Let other threads in, also after an error, unless that came before this pass was noted."""
        if self._is_first_pass(module) and self._entered:
            self._sharing.close()
            self._entered = False
            self._lock.release()

    def _run_prefills(self, own: dict[str, Any], output: Any) -> list[Tensor]:
        """Run the twins' prompts, and keep on the first pass's cache what their next steps need."""
        first = prompt_of(own)
        batch, length = first.shape[:2]
        cache = getattr(output, "past_key_values", None)
        state = TwinState(batch, length=length, layer=self._layer)
        told = {**own, "attention_mask": prompt_mask(own)}
        logits = []
        for number, (change, empty) in enumerate(zip(self._changes, self._empty, strict=True), start=1):
            changed = change(told)
            inputs = {**own, **changed, "past_key_values": empty}
            same_tokens = prompt_of(inputs).shape[1] == length and "attention_mask" not in changed
            if not same_tokens:
                inputs = placed_anew(inputs, changed)
                # A static cache has room for the first pass's prompt only.
                if getattr(empty, "is_compileable", False):
                    inputs["past_key_values"] = DynamicCache(config=self._text_config)
            with running_branch(number):
                ran = self._model(**inputs)
            logits.append(ran.logits)
            state.caches.append(getattr(ran, "past_key_values", None))
            state.prompt_lengths.append(prompt_of(inputs).shape[1])
            state.offsets.append(read_offsets(self._model))
            if not same_tokens:
                state.tensors["mask", number] = prompt_mask(inputs)
                state.tensors["ahead", number] = ahead_of(own, inputs)
        self._empty = []
        if cache is not None:
            store_state(cache, self._owner, state)
        return logits

    def _run_steps(self, own: dict[str, Any], output: Any) -> list[Tensor]:
        """Give every twin the tokens of the first pass."""
        state = stored_state(output.past_key_values, self._owner)
        assert isinstance(state, TwinState)
        state.join()
        inputs = [self._step_of(number, own, state) for number in range(1, len(state.offsets) + 1)]
        if state.joined:
            whole = {**side_by_side(inputs, state.batch), "past_key_values": state.caches[0]}
            logits: Tensor = self._run(TOGETHER, whole, offsets_in_one(state.offsets, state.batch))
            return list(logits.split(state.batch))
        return [
            self._run(number, {**one, "past_key_values": cache}, offsets)
            for number, (one, cache, offsets) in enumerate(zip(inputs, state.caches, state.offsets, strict=True), 1)
        ]

    def _step_of(self, number: int, own: dict[str, Any], state: TwinState) -> dict[str, Any]:
        """Return the arguments of one twin's step but for its cache."""
        if (mask := state.tensors.get(("mask", number))) is None:
            return dict(own)
        grown = int(state.cache_of(number).get_seq_length(self._layer)) - mask.shape[1]
        return step_inputs(dict(own), mask, grown, state.tensors["ahead", number], state.length)

    def _run(self, branch: int, inputs: dict[str, Any], offsets: Offsets) -> Tensor:
        write_offsets(offsets)
        with running_branch(branch):
            logits: Tensor = self._model(**inputs).logits
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
