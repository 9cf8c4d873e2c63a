"""Twins that read a prompt and its answer anew for every token, where what changes in them is decided anew too.

They keep no cache. What they need is kept on the first pass's cache: the inputs of its prefill, and the tokens since.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from omnisink.decoder import refusals
from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.branches import running_branch
from omnisink.decoder.caches import SequenceState, store_state, stored_state
from omnisink.decoder.twin_inputs import prompt_mask
from omnisink.decoder.twins import Change, Combine, Twins

#: Inputs with an entry for each token, which a step may leave out; what was generated is text there.
_KINDS = ("mm_token_type_ids", "token_type_ids")
#: Arguments of a prefill that a pass over a longer text is not given.
_NOT_KEPT = ("attention_mask", "position_ids", "cache_position", "labels", "logits_to_keep")


@dataclass
class ReadTokens(SequenceState):
    """Prompts and answers of one cache as they have been read, to be read again.

    Attributes
    ----------
    inputs : dict
        Arguments of the prefill that have no entry for each token, such as pixels; copies of the cache share them.
    prompt : Tensor or None
        (B, S) the ids of the prompts, in the order of `inputs`.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    prompt: Tensor | None = None

    def start(self, own: Mapping[str, Any]) -> None:
        """Keep what a prefill was called with."""
        ids = _ids(own)
        of_tokens = {name for name in ("input_ids", *_KINDS) if isinstance(own.get(name), Tensor)}
        self.inputs = {name: value for name, value in own.items() if name not in of_tokens and name not in _NOT_KEPT}
        self.prompt = ids
        self.tensors |= {name: own[name] for name in of_tokens}
        self.tensors["attention_mask"] = prompt_mask(own)
        if isinstance(places := own.get("position_ids"), Tensor):
            self.tensors["position_ids"] = _by_sequence(places, len(ids))

    def grow(self, own: Mapping[str, Any]) -> None:
        """Add the tokens of a step."""
        ids = _ids(own)
        more = ids.shape[1]
        self.tensors["input_ids"] = torch.cat([self.tensors["input_ids"], ids], dim=-1)
        for name in _KINDS:
            if name in self.tensors:
                self.tensors[name] = pad(self.tensors[name], (0, more))
        mask, given = self.tensors["attention_mask"], own.get("attention_mask")
        if isinstance(given, Tensor) and given.dim() == 2:
            self.tensors["attention_mask"] = torch.cat([mask, given[:, -more:].to(mask)], dim=-1)
        else:
            self.tensors["attention_mask"] = pad(mask, (0, more), value=1)
        if (known := self.tensors.pop("position_ids", None)) is not None and isinstance(
            places := own.get("position_ids"), Tensor
        ):
            self.tensors["position_ids"] = torch.cat([known, _by_sequence(places, len(ids))], dim=-1)

    def whole(self) -> dict[str, Any]:
        """Return the arguments of a pass over everything that was read."""
        ids = self.tensors["input_ids"]
        if self.prompt is None or not torch.equal(ids[:, : self.length], self.prompt):
            raise refusals.prompts_moved()
        read: dict[str, Any] = {str(name): tensor for name, tensor in self.tensors.items()}
        if (places := read.get("position_ids")) is not None and places.dim() > 2:
            read["position_ids"] = places.movedim(0, -2)
        return {**self.inputs, **read, "past_key_values": None, "use_cache": False}

    def after_crop(self, held: Any) -> None:
        """Forget as many tokens as the first pass's cache did."""
        super().after_crop(held)
        self.tensors = {name: tensor[..., : int(held)] for name, tensor in self.tensors.items()}


class RereadTwins(Twins):
    """Twins of every pass of one model, each over all that was read so far.

    Parameters
    ----------
    anatomy, changes, combine, owner
        See `Twins`; a change is called for every pass, with the arguments of the pass over everything.
    wanted : callable
        From the first pass's logits (B, n, V) of a step to whether its twins are to run: where they are not, they are
        taken to say what the first pass says.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        changes: Sequence[Change],
        combine: Combine,
        owner: Hashable,
        wanted: Callable[[Tensor], bool],
    ) -> None:
        super().__init__(anatomy, [], combine, owner)
        self._reread, self._wanted = list(changes), wanted

    def _run_prefills(self, own: dict[str, Any], output: Any) -> list[Tensor]:
        """Keep what was read, and read it in every twin."""
        batch, length = _ids(own).shape
        state = ReadTokens(batch, length=length, layer=self._layer)
        state.start(own)
        if (cache := getattr(output, "past_key_values", None)) is not None:
            store_state(cache, self._owner, state)
        return self._read(state, output.logits)

    def _run_steps(self, own: dict[str, Any], output: Any) -> list[Tensor]:
        """Read everything anew in every twin."""
        state = stored_state(output.past_key_values, self._owner)
        assert isinstance(state, ReadTokens)
        state.grow(own)
        return self._read(state, output.logits)

    def _read(self, state: ReadTokens, first: Tensor) -> list[Tensor]:
        """Return each twin's logits of the tokens that `first` (B, n, V) is of."""
        if not self._wanted(first):
            return [first for _ in self._reread]
        rows, whole = first.shape[1], state.whole()
        if "logits_to_keep" in self._signature.parameters:
            whole["logits_to_keep"] = rows
        logits = []
        for number, change in enumerate(self._reread, start=1):
            with running_branch(number):
                logits.append(self._model(**{**whole, **change(whole)}).logits[:, -rows:])
        return logits


def _ids(own: Mapping[str, Any]) -> Tensor:
    """Return the ids (B, n) of a pass."""
    ids = own.get("input_ids")
    if not isinstance(ids, Tensor):
        raise refusals.no_ids_to_read_again()
    return ids


def _by_sequence(places: Tensor, batch: int) -> Tensor:
    """Return positions (B, n), (1, n), (3, B, n) or (4, B, n) with the sequence first."""
    return places.expand(batch, -1) if places.dim() == 2 else places.movedim(-2, 0)
