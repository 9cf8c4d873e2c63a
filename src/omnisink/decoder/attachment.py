"""Put a handler on a model's decoder and take it off without a trace."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.arguments import check_cache, find_argument, find_cache, find_mask
from omnisink.decoder.caches import BASE_CACHE, follow
from omnisink.decoder.checkpointing import CheckpointWatch
from omnisink.decoder.hooks import LayerHooks
from omnisink.decoder.interface import AttentionCall, listen, refuse_packed
from omnisink.decoder.masks import token_mask_of
from omnisink.decoder.passes import Pass, begin_pass, continues
from omnisink.decoder.refusals import watch_generation
from omnisink.decoder.threads import ThreadGuard
from omnisink.errors import OmnisinkError, UnsupportedModelError

#: By the id of a text model, the kinds of handlers on it. It carries no mark itself, as its copies would carry it too.
_ATTACHED: dict[int, set[str]] = {}

#: Stands for "the text model has not been called": None is a mask like any other.
_UNSEEN = object()


class Handler(Protocol):
    """What is told of every pass through the decoder."""

    def begin(self, now: Pass) -> None:
        """Start a pass, before its first layer."""

    def watches_steps(self) -> bool:
        """Say whether it wants the residual stream of passes that add one token to each sequence."""

    def step(self, now: Pass) -> Mapping[int, Callable[[Tensor], Tensor]] | None:
        """Return what the head outputs of every layer go through in a pass that adds one token to each sequence.

        None where that is a matter of more than the head outputs: `attention_input` and `head_output` are asked then.
        """

    def residual_stream(self, layer: int, hidden: Tensor, now: Pass) -> None:
        """Receive the residual stream entering a layer, (B, S, d)."""

    def idle(self, layer: int, now: Pass) -> bool:
        """Say whether a layer, whose residual stream has been received, need not run for the handler's sake."""

    def attention_input(self, call: AttentionCall, now: Pass) -> AttentionCall:
        """Receive a layer's queries, keys and values, and return those to attend with."""

    def head_output(self, call: AttentionCall, output: Tensor, now: Pass) -> Tensor:
        """Receive a layer's head outputs, (B, S, H, D'), and return those to use."""

    def last_hidden_state(self, hidden: Tensor, now: Pass) -> None:
        """Receive what left the decoder, (B, S' <= S, d)."""

    def end(self, now: Pass, reached: set[int]) -> None:
        """End a pass, with the layers whose attention was reached."""


class Attachment:
    """One handler on one model.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder.
    handler : Handler
        What is told.
    owner : hashable
        Whose state the caches keep; a conversation goes on under an equal owner.
    name : str
        Kind of handler. One model carries at most one of a kind at a time.
    """

    def __init__(self, anatomy: Anatomy, handler: Handler, owner: Hashable, name: str) -> None:
        self._anatomy = anatomy
        self._handler = handler
        self._owner = owner
        self._name = name
        self._stack = ExitStack()
        self._mask: Any = _UNSEEN
        self._now: Pass | None = None
        #: See `omnisink.decoder.interface.Listener`.
        self.step: Mapping[int, Callable[[Tensor], Tensor]] | None = None
        self._entered: set[int] = set()
        self._reached: set[int] = set()
        self._has_cache = False
        self._checkpoints = CheckpointWatch()
        self._attached = False
        self._threads = ThreadGuard()
        self._followed: set[type] = set()
        self._layer_hooks = LayerHooks([])
        self._asked_layer = min(anatomy.attention)

    def attach(self) -> None:
        """Put the handler on.

        Raises
        ------
        OmnisinkError
            If the model carries one of this kind already.
        UnsupportedModelError
            If its attention implementation is unknown to transformers.
        """
        anatomy = self._anatomy
        if self._name in _ATTACHED.get(id(anatomy.text_model), ()):
            raise OmnisinkError(f"{self._name} is already attached to this {type(anatomy.model).__name__}")
        with ExitStack() as stack:
            _ATTACHED.setdefault(id(anatomy.text_model), set()).add(self._name)
            stack.callback(self._unmark)
            for stop in [*watch_generation(anatomy.model, self._threads), *follow(BASE_CACHE)]:
                stack.callback(stop)
            self._followed.add(BASE_CACHE)
            self._hook(stack, anatomy.text_model, self._take_mask())
            stack.callback(anatomy.text_model.register_forward_hook(self._finish).remove)
            stack.callback(anatomy.text_model.register_forward_hook(self._leave, always_call=True).remove)
            self._layer_hooks = LayerHooks(
                [(layer, self._take_residual(index, layer)) for index, layer in enumerate(anatomy.layers)]
            )
            stack.callback(self._layer_hooks.remove)
            for index, site in anatomy.attention.items():
                stack.callback(listen(site, index, self))
            self._stack = stack.pop_all()
        self._attached = True

    def detach(self) -> None:
        """Take the handler off; the model is as it was.

        Raises
        ------
        OmnisinkError
            If another thread was still generating. It gets an error too, and the handler is off all the same.
        """
        stopped = self._threads.close()
        self._attached = False
        self._stack.close()
        self._now = self.step = None
        if stopped:
            raise OmnisinkError(
                f"the block of {self._name} ended while something was still generating, which was stopped: half of it "
                "would have been without the method. Join the thread inside the block"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        """Return itself: in a copy of the model it is what knows that this is a copy."""
        return self

    def _unmark(self) -> None:
        key = id(self._anatomy.text_model)
        _ATTACHED[key].discard(self._name)
        if not _ATTACHED[key]:
            del _ATTACHED[key]

    @staticmethod
    def _hook(stack: ExitStack, module: nn.Module, hook: Callable[..., None]) -> None:
        stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def _take_mask(self) -> Callable[..., None]:
        find, cache_of = find_mask(self._anatomy.text_model), find_cache(self._anatomy.text_model)
        ids_of, embeds_of = (find_argument(self._anatomy.text_model, name) for name in ("input_ids", "inputs_embeds"))

        def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._attached:
                return  # The hook of a copy that was made inside the block, which is over.
            if module is not self._anatomy.text_model:
                raise UnsupportedModelError(
                    f"this is a copy of the {type(module).__name__} that {self._name} is on, as DataParallel makes "
                    "for each device: what belongs to one prompt could not be kept apart. Put the method on the copy"
                )
            if not torch.compiler.is_compiling():
                self._threads.enter_pass()
            self._mask = find(args, kwargs)
            self._has_cache = cache_of(args, kwargs) is not None
            self._now = self.step = None
            if not torch.compiler.is_compiling():
                self._checkpoints = CheckpointWatch()
                self._layer_hooks.put_back()
                ids = ids_of(args, kwargs)
                self._begin_step(cache_of(args, kwargs), embeds_of(args, kwargs) if ids is None else ids, kwargs)

        return take

    def _begin_step(self, cache: Any, entering: Any, kwargs: dict[str, Any]) -> None:
        """Begin a pass that adds one token to each sequence before its layers run, where none has to be watched."""
        if not isinstance(entering, Tensor) or entering.dim() < 2 or entering.shape[1] != 1:
            return
        if self._handler.watches_steps() or not continues(cache, self._asked_layer, self._owner):
            return
        now = self._begin(cache, entering.shape[0], 1, entering.device)
        self._entered = set(self._anatomy.attention)  # Of the prefill it is known that they are called as modules.
        self._layer_hooks.put_aside()
        if not torch.is_grad_enabled():  # With gradients, checkpoints have to be watched for at every layer.
            refuse_packed(kwargs)
            self.step = self._handler.step(now)

    def _take_residual(self, index: int, layer: nn.Module) -> Callable[..., None]:
        cache_of = find_cache(layer)

        def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._attached:
                return
            hidden = args[0] if args else kwargs.get("hidden_states")
            if not isinstance(hidden, Tensor) or hidden.dim() != 3:
                what = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
                raise UnsupportedModelError(
                    f"layer {index} ({type(layer).__name__}) receives {what}, not one residual stream (B, S, d)"
                )
            if self._now is None:
                refuse_packed(kwargs)
                cache = cache_of(args, kwargs)
                check_cache(cache, layer, model_has_one=self._has_cache)
                self._begin(cache, hidden.shape[0], hidden.shape[1], hidden.device)
            assert self._now is not None
            self._entered.add(index)
            self._handler.residual_stream(index, hidden, self._now)

        return take

    def _begin(self, cache: Any, batch: int, length: int, device: torch.device) -> Pass:
        if cache is not None and not torch.compiler.is_compiling() and type(cache) not in self._followed:
            self._followed.add(type(cache))
            for stop in follow(type(cache)):
                self._stack.callback(stop)
        if self._mask is _UNSEEN:
            raise UnsupportedModelError(
                f"the decoder layers ran outside a call of {type(self._anatomy.text_model).__name__}, "
                "so that their padding is unknown"
            )
        now = begin_pass(cache, self._asked_layer, batch, length, device, self._owner)
        if now.is_prefill or length > 1:
            now.token_mask = token_mask_of(
                self._mask, batch, length, device, is_prefill=now.is_prefill, deferred_checks=now.deferred_checks
            )
        self._mask = _UNSEEN
        self._has_cache = cache is not None
        self._entered = set()
        self._reached = set()
        self._handler.begin(now)
        self._now = now
        return now

    # What the attention interface asks; a layer run by itself, outside the decoder, has no pass.

    def idle(self, layer: int) -> bool:
        """Ask the handler whether a layer need not run for its sake."""
        return self._now is None or self._handler.idle(layer, self._now)

    def attention_input(self, call: AttentionCall) -> AttentionCall:
        """Hand a layer's queries, keys and values to the handler."""
        if self._now is None:
            if self._mask is not _UNSEEN:
                raise self._unannounced(call.layer)
            return call
        if not torch.compiler.is_compiling():
            self._checkpoints.refuse_recomputation()
        return self._handler.attention_input(call, self._now)

    def head_output(self, call: AttentionCall, output: Tensor) -> Tensor:
        """Hand a layer's head outputs to the handler."""
        if self._now is None:
            return output
        self._reached.add(call.layer)
        return self._handler.head_output(call, output, self._now)

    def _finish(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module is not self._anatomy.text_model:
            return
        now, self._now, self.step = self._now, None, None
        pending, self._mask = self._mask is not _UNSEEN, _UNSEEN
        if pending:
            raise self._unannounced(None)
        if now is None:
            return
        if unannounced := self._reached - self._entered:
            raise self._unannounced(min(unannounced))
        if not self._has_cache and getattr(output, "past_key_values", None) is not None:
            check_cache(None, self._anatomy.layers[0], model_has_one=True)
        hidden = output if isinstance(output, Tensor) else output[0]
        if isinstance(hidden, Tensor) and hidden.dim() == 3:
            self._handler.last_hidden_state(hidden, now)
        self._handler.end(now, self._reached)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._layer_hooks.put_back()
            self._threads.leave_pass()

    def _unannounced(self, layer: int | None) -> UnsupportedModelError:
        which = "none of its layers was" if layer is None else f"layer {layer} was not"
        return UnsupportedModelError(
            f"{type(self._anatomy.text_model).__name__} ran, but {which} called as a module, so that its hooks never "
            "saw the residual stream. Layers have to be called as layer(...), not as layer.forward(...)"
        )
