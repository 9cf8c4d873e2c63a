"""Put a method on a model's decoder, tell it of every pass, and take it off without a trace."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder import refusals
from omnisink.decoder.arguments import find_argument, find_cache, find_mask, token_mask_of
from omnisink.decoder.branches import InBranch, current_branch
from omnisink.decoder.caches import BASE_CACHE, follow
from omnisink.decoder.checkpointing import CheckpointWatch
from omnisink.decoder.context import Context
from omnisink.decoder.generation import watch_generation
from omnisink.decoder.hooks import LayerHooks
from omnisink.decoder.interface import listen, refuse_packed
from omnisink.decoder.passes import begin_pass, continues
from omnisink.decoder.threads import ThreadGuard

#: By the id of a text model, the kinds of methods on it. It carries no mark itself, as its copies would carry it too.
_ATTACHED: dict[int, set[str]] = {}

#: Stands for "the text model has not been called": None is a mask like any other.
_UNSEEN = object()


class Attachment:
    """One method on one model.

    Parameters
    ----------
    context : Context
        The method and the model, and what the method is told.
    owner : hashable
        Whose state the caches keep; a conversation goes on under an equal owner.
    name : str
        Kind of method. One model carries at most one of a kind at a time.
    branch : int, optional
        The only branch that the method acts in (`omnisink.decoder.twins`); None is every one, each with a state of its
        own.
    """

    def __init__(self, context: Context, owner: Hashable, name: str, branch: int | None = None) -> None:
        self._context = context
        self._branch = branch
        self._owner = InBranch(owner, branch) if branch else owner
        self._name = name
        self._text_model = context.anatomy.text_model
        self._asked_layer = min(context.anatomy.attention)
        self._stack = ExitStack()
        self._attached = False
        self._threads = ThreadGuard()
        self._layer_hooks = LayerHooks([])
        self._followed: set[type] = set()
        self._mask: Any = _UNSEEN
        self._has_cache = False
        self._entered: set[int] = set()

    def attach(self) -> None:
        """Put the method on, unless the model carries one of this kind already (`OmnisinkError`).

        An attention implementation that transformers does not know is an `UnsupportedModelError`.
        """
        anatomy, text_model = self._context.anatomy, self._text_model
        if self._name in _ATTACHED.get(id(text_model), ()):
            raise refusals.already_attached(self._name, anatomy.model)
        with ExitStack() as stack:
            _ATTACHED.setdefault(id(text_model), set()).add(self._name)
            stack.callback(self._unmark)
            for stop in watch_generation(anatomy.model, self._threads):
                stack.callback(stop)
            self._follow(BASE_CACHE, stack)
            enter = text_model.register_forward_pre_hook(self._enter_text_model(), with_kwargs=True)
            stack.callback(enter.remove)
            stack.callback(text_model.register_forward_hook(self._finish).remove)
            stack.callback(text_model.register_forward_hook(self._leave, always_call=True).remove)
            if self._context.prompt_spans is not None:
                stack.callback(self._context.prompt_spans.watch())
            self._layer_hooks = LayerHooks([(layer, self._enter_layer(i)) for i, layer in enumerate(anatomy.layers)])
            stack.callback(self._layer_hooks.remove)
            for index, site in anatomy.attention.items():
                stack.callback(listen(site, index, self._context))
            self._stack = stack.pop_all()
        self._attached = True

    def detach(self) -> None:
        """Take the method off; the model is as it was.

        If another thread was still generating, this raises an `OmnisinkError` afterwards; that thread gets one too.
        """
        stopped = self._threads.close()
        self._attached = False
        self._stack.close()
        self._context.end()
        if stopped:
            raise refusals.ended_while_generating(self._name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        """Return itself: in a copy of the model it is what knows that this is a copy."""
        return self

    def _acts_here(self) -> bool:
        return self._branch is None or self._branch == current_branch()

    def _unmark(self) -> None:
        kinds = _ATTACHED[id(self._text_model)]
        kinds.discard(self._name)
        if not kinds:
            del _ATTACHED[id(self._text_model)]

    def _follow(self, cache_type: type, stack: ExitStack) -> None:
        if cache_type not in self._followed:
            self._followed.add(cache_type)
            for stop in follow(cache_type):
                stack.callback(stop)

    def _enter_text_model(self) -> Callable[..., None]:
        mask_of, cache_of = find_mask(self._text_model), find_cache(self._text_model)
        ids_of, embeds_of = (find_argument(self._text_model, name) for name in ("input_ids", "inputs_embeds"))

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._attached:
                return  # The hook of a copy that was made inside the block, which is over.
            if module is not self._text_model:
                raise refusals.copy_of_model(module, self._name)
            if not self._acts_here():
                self._context.end()
                return
            if not torch.compiler.is_compiling():
                self._threads.enter_pass()
            self._mask = mask_of(args, kwargs)
            self._has_cache = cache_of(args, kwargs) is not None
            self._context.end()
            self._context.awaits_layer = True
            if not torch.compiler.is_compiling():
                self._context.checkpoints = CheckpointWatch()
                self._layer_hooks.put_back()
                ids = ids_of(args, kwargs)
                self._begin_step(cache_of(args, kwargs), embeds_of(args, kwargs) if ids is None else ids, kwargs)

        return enter

    def _begin_step(self, cache: Any, entering: Any, kwargs: dict[str, Any]) -> None:
        """Begin a pass that adds one token to each sequence before its layers run, where none has to be watched."""
        method = self._context.method
        if not isinstance(entering, Tensor) or entering.dim() < 2 or entering.shape[1] != 1:
            return
        if method.watches_steps or not continues(cache, self._asked_layer, self._owner):
            return
        self._begin(cache, entering)
        self._entered = set(self._context.anatomy.attention)  # The prefill has shown that they are called as modules.
        self._layer_hooks.put_aside()
        if not torch.is_grad_enabled():  # With gradients, checkpoints have to be watched for at every layer.
            refuse_packed(kwargs)
            self._context.step = method.step(self._context)

    def _enter_layer(self, index: int) -> Callable[..., None]:
        layer = self._context.anatomy.layers[index]
        cache_of = find_cache(layer)

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._attached or not self._acts_here():
                return
            hidden = args[0] if args else kwargs.get("hidden_states")
            if not isinstance(hidden, Tensor) or hidden.dim() != 3:
                raise refusals.no_residual_stream(index, layer, hidden)
            if not self._context.in_pass:
                refuse_packed(kwargs)
                cache = cache_of(args, kwargs)
                told_apart = hasattr(cache, "get_seq_length") and hasattr(cache, "__dict__")
                if not told_apart and (cache is not None or self._has_cache):
                    raise refusals.unusable_cache(cache, layer)
                self._begin(cache, hidden)
            self._entered.add(index)
            self._context.enter_layer(index, hidden)

        return enter

    def _begin(self, cache: Any, entering: Tensor) -> None:
        """Begin a pass with what enters the text model or its first layer, (B, S) or (B, S, d)."""
        if self._mask is _UNSEEN:
            raise refusals.outside_text_model(self._text_model)
        if cache is not None and not torch.compiler.is_compiling():
            self._follow(type(cache), self._stack)
        batch, length = entering.shape[:2]
        now = begin_pass(cache, self._asked_layer, batch, length, entering.device, self._owner)
        if now.is_prefill or length > 1:
            now.token_mask = token_mask_of(self._mask, now)
        self._mask, self._has_cache, self._entered = _UNSEEN, cache is not None, set()
        self._context.begin(now)

    def _finish(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """End a pass that has come to its end, and check that the method was asked about all of it."""
        if module is not self._text_model or not self._acts_here():
            return
        context, was_in_pass = self._context, self._context.in_pass
        self._mask = _UNSEEN
        context.end()
        if context.awaits_layer:
            context.awaits_layer = False
            raise refusals.not_called_as_module(module, None)
        if not was_in_pass:
            return
        if unannounced := context.reached - self._entered:
            raise refusals.not_called_as_module(module, min(unannounced))
        if not self._has_cache and getattr(output, "past_key_values", None) is not None:
            raise refusals.unusable_cache(None, context.anatomy.layers[0])
        hidden = output if isinstance(output, Tensor) else output[0]
        if isinstance(hidden, Tensor) and hidden.dim() == 3:
            context.method.last_hidden_state(hidden, context)
        context.check_reached()

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Leave the text model, also after an error."""
        if self._acts_here() and not torch.compiler.is_compiling():
            self._layer_hooks.put_back()
            self._threads.leave_pass()
