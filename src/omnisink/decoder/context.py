"""What a method is told in a pass: the call of a layer's attention, and what belongs to the method on this model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omnisink.decoder import refusals
from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.checkpointing import CheckpointWatch
from omnisink.decoder.intervention import Intervention
from omnisink.decoder.passes import Pass

if TYPE_CHECKING:
    from omnisink.decoder.spans import PromptSpans


@dataclass(slots=True)
class AttentionCall:
    """One call of a layer's attention function, as a method sees it.

    Attributes
    ----------
    layer : int
        Index of the decoder layer.
    query : Tensor
        (B, H, S, D), after position encoding and norms.
    key, value : Tensor
        (B, K, T, D) and (B, K, T, D'), after the cache update, before repetition; T may exceed the tokens held where
        the cache is static.
    scaling : float or None
        The module's softmax scale; None is ``1 / sqrt(D)``.
    window : int or None
        Keys a query reaches back over; None where that is the whole prompt.
    options : Mapping
        Every other keyword of the call, under the names that transformers gives them.
    mask : object
        The attention mask as the backend takes it; see `omnisink.decoder.masks.visible_keys`.
    prompt_length : int or None
        Tokens of the prompt, padding included, with which the keys begin; None where all keys are the prompt's.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float | None
    window: int | None
    options: Mapping[str, Any]
    mask: Any = None
    prompt_length: int | None = None

    @property
    def prompt_keys(self) -> Tensor:
        """Keys of the prompt, (B, K, S, D)."""
        return self.key[:, :, : self.prompt_length]

    @property
    def prompt_values(self) -> Tensor:
        """Values of the prompt, (B, K, S, D')."""
        return self.value[:, :, : self.prompt_length]

    @property
    def softcap(self) -> float | None:
        """Scores become ``softcap * tanh(scores / softcap)`` where the model does so (Gemma 2)."""
        return self.options.get("softcap")

    @property
    def learned_sink(self) -> Tensor | None:
        """(H,) logits that take part in every softmax without a value (gpt-oss), where the model has them."""
        return self.options.get("s_aux", self.options.get("sinks"))


class Context:
    """One method on one model: what belongs to a question that it is asked.

    Attributes
    ----------
    anatomy : Anatomy
        The model's decoder.
    now : Pass
        The pass that is running; `now.state.tensors` are the method's own, kept with the cache.
    record : Record
        What the running pass's prefill is reported in, of the class that the method names.
    trace : Trace
        What the user reads.
    scratch : dict
        The method's own, emptied at the start of every pass.
    """

    def __init__(self, method: Intervention, anatomy: Anatomy, trace: Any) -> None:
        self.method = method
        self.anatomy = anatomy
        self.trace = trace
        self.now: Pass
        self.record: Any = None
        self.scratch: dict[str, Any] = {}
        #: The method's own, kept for the length of the block.
        self.block: dict[str, Any] = {}
        #: Where the user gave a model together with its tokenizer, that.
        self.tokenizer: Any = None
        #: Whether the method looks at what a layer attends with, and whether it may answer in the model's place.
        self.looks_at_input = type(method).attention_input is not Intervention.attention_input
        self.may_answer = type(method).attend is not Intervention.attend
        self._backends = anatomy.backends()
        #: What knows the modalities of tokens, where the method asks for them.
        self.prompt_spans: PromptSpans | None = None
        #: Whether a pass is running, and whether one is waiting for its first layer; for a layer that is run by
        #: itself, outside the decoder, neither is so.
        self.in_pass = self.awaits_layer = False
        #: See `Intervention.step`; None in a pass of any other kind.
        self.step: Mapping[int, Callable[[Tensor], Tensor]] | None = None
        self.checkpoints = CheckpointWatch()
        #: Layers whose attention ran; that run on a part of the pass's tokens; that were answered from an earlier run.
        self.reached: set[int] = set()
        self.partial: set[int] = set()
        self.skipped: set[int] = set()

    def begin(self, now: Pass) -> None:
        """Start a pass; a prefill gets a new record."""
        self.now, self.scratch = now, {}
        self.in_pass, self.awaits_layer = True, False
        self.reached, self.partial, self.skipped = set(), set(), set()
        if now.is_prefill:
            now.state.record = self.method.start_record(self)
        self.record = now.state.record
        if now.is_prefill and self.prompt_spans is not None:
            self.prompt_spans.keep(now)
        self.method.begin(self)

    @property
    def spans(self) -> dict[str, Tensor]:
        """Tokens of ``"text"``, ``"image"``, ``"video"`` and ``"audio"`` in the prompt, as `decoder.spans` finds them.

        (B, S) bool of the prompt's columns, in every pass; a modality that the model does not take is missing.
        """
        if self.prompt_spans is None:
            raise refusals.spans_not_asked_for(self.method)
        return self.prompt_spans.of(self.now)

    def end(self) -> None:
        """End the pass, if one is running."""
        if self.in_pass:
            self.now.cache = None  # Whoever looks at the trace later does not keep the cache alive.
        self.in_pass, self.step = False, None

    def enter_layer(self, layer: int, hidden: Tensor) -> None:
        """Show the method the residual stream that enters a layer, where it is that of the whole pass.

        Layers that share keys and values (Gemma 4) are run on the last tokens only when only their logits are asked
        for. There is no prompt to see in them, so they are left alone, and reported in a prefill.
        """
        if hidden.shape[1] == self.now.length:
            self.method.residual_stream(layer, hidden, self)
            return
        self.partial.add(layer)
        if self.now.is_prefill:
            self.record.skipped[layer] = f"the model runs it on {hidden.shape[1]} of {self.now.length} tokens alone"

    def acts_on(self, layer: int) -> bool:
        """Whether the method is to be asked about the attention of a layer, which runs now."""
        if not self.in_pass:
            if self.awaits_layer:
                raise refusals.not_called_as_module(self.anatomy.text_model, layer)
            return False
        if not torch.compiler.is_compiling():
            self.checkpoints.refuse_recomputation()
        self.reached.add(layer)
        return layer not in self.partial

    def can_skip(self, layer: int) -> bool:
        """Whether a layer, whose residual stream has been received, need not run for the method's sake."""
        if self.in_pass and layer not in self.partial and not self.method.can_skip_layer(layer, self):
            return False
        self.skipped.add(layer)
        return True

    def check_reached(self) -> None:
        """Check in a prefill that the layers thought reachable were reached, but for those that need not run."""
        missed = self.anatomy.attention.keys() - self.reached - self.skipped if self.now.is_prefill else set()
        if missed and not self.reached:
            raise refusals.not_reached(self.anatomy.model, self._backends, self.anatomy.backends())
        for layer in missed:
            self.record.skipped[layer] = "its attention did not run through the attention interface in this pass"

    def __deepcopy__(self, memo: dict[int, Any]) -> Context:
        """Return itself: in a copy of the model it is what knows that this is a copy."""
        return self
