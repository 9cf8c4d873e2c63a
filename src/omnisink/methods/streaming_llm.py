"""StreamingLLM: generate with the first tokens, which are the sinks, and the last ones, and nothing between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import ref

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.key_rotation import KeyRotation
from omnisink.decoder.positions import read_rotations
from omnisink.decoder.streaming import full_attention_layers, keys_at, stream_layers
from omnisink.decoder.visibility import visible_to
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.maths.decomposition import attend, visible
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.base import Method
from omnisink.methods.presets import Preset
from omnisink.methods.space import Choices, IntRange


@dataclass(frozen=True)
class StreamingLLM(Method):
    """Attend to the first tokens and the last ones only, from every token that is generated (Xiao et al. 2024).

    A pass that adds n tokens to a prompt attends to the first `n_sink` real tokens of each sequence and to its last
    ``max(window, n)``, the new ones included. Under padding every sequence has first tokens of its own. A prompt sees
    all of itself, unless `prefill` says otherwise. Layers that have a window of their own are left as they are.

    As a knockout (the default) the tokens between are hidden and stay in the cache: the answers are those of a cache
    that has dropped them, and no memory is saved. With `evict` they are dropped from the model's dynamic cache.

    Parameters
    ----------
    n_sink : int
        First tokens to keep; the paper keeps four. Zero leaves a window without sinks, which destroys most models.
    window : int
        Last tokens to keep. The release's class has 512, its script 2000.
    shift : bool
        Count positions inside the cache, as the paper does: the first tokens move up to the last ones, so that no
        position is larger than ``n_sink + window``. Keys are turned by the family's own rotary frequencies. False
        keeps the positions of the text.
    evict : bool
        Drop the tokens between from the cache.
    prefill : bool
        Let every token of the prompt see what it would see if it were generated, one at a time. This is how the paper
        measures perplexity, with the positions of the text; it is computed in one pass here.

    Raises
    ------
    ValueError
        If a number is out of range, or `prefill` is combined with `shift`.
    """

    n_sink: int = 4
    window: int = 512
    shift: bool = False
    evict: bool = False
    prefill: bool = False

    watches_steps: ClassVar[bool] = False
    source: ClassVar[str] = "Xiao et al. (arXiv 2309.17453, ICLR 2024)"
    licence: ClassVar[str] = "MIT"
    derived: ClassVar[str] = (
        "the knockout with the positions of the text, `prefill`, padding and other batches than one"
    )
    cost: ClassVar[str] = (
        "nothing in a prefill; attention to the kept keys only in a step, in float32 where none are dropped"
    )
    measured: ClassVar[str] = (
        "SmolLM2-135M, 3,000 tokens, 256 kept (`prefill`): perplexity 75.0 without first tokens, 44.2 with one, "
        "44.1 with four; 35.9 with all tokens"
    )
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches (evict: dynamic); padding on both sides; beams"
    search_space: ClassVar = {"n_sink": IntRange(1, 16), "window": Choices((128, 256, 512, 1024, 2000))}
    presets: ClassVar = {
        "paper": Preset("Drop tokens and count positions inside the cache.", {"shift": True, "evict": True}),
        "release": Preset(
            "As the release's script: the paper's rule with the last 2000 tokens.",
            {"shift": True, "evict": True, "window": 2000},
        ),
    }

    def __post_init__(self) -> None:
        if self.n_sink < 0 or self.window < 1:
            raise ValueError(f"n_sink must be at least 0 and window at least 1, got {self.n_sink} and {self.window}")
        if self.prefill and self.shift:
            raise ValueError("prefill keeps the positions of the text: it cannot be combined with shift")

    def check(self, anatomy: Anatomy) -> None:
        """Refuse models whose layers all have a window, and with `shift` those whose keys cannot be turned."""
        if not full_attention_layers(anatomy):
            raise UnsupportedModelError(
                f"StreamingLLM is not defined on {type(anatomy.model).__name__}: every layer has a window of its own, "
                "which has dropped the first tokens already"
            )
        self._turns(anatomy)

    def _turns(self, anatomy: Anatomy) -> Mapping[int, KeyRotation | None]:
        """Return what turns the keys of each layer; nothing where positions are kept."""
        return read_rotations(anatomy, "StreamingLLM(shift=True)") if self.shift else {}

    def begin(self, context: Context) -> None:
        """Check where padding stands, keep the cache in sight, and say which layers are left as they are."""
        token_mask = context.now.token_mask
        if self.evict and token_mask is not None:
            padding = (~token_mask).to(torch.uint8)
            if not context.now.is_prefill:  # Padding may stand before a prompt only.
                padding = torch.nn.functional.pad(padding, (1, 0))
            flag = (padding.diff(dim=1) == 1).any()
            error = OmnisinkError("StreamingLLM(evict=True) needs padding on the left: set padding_side='left'")
            if is_eager_cpu(flag) and bool(flag):
                raise error
            context.record.defer_check(flag, error)
        if not context.now.is_prefill:
            return
        context.scratch["cache"] = None if context.now.cache is None else ref(context.now.cache)
        for layer in context.anatomy.attention.keys() - full_attention_layers(context.anatomy).keys():
            context.record.skipped[layer] = "it has a window of its own"

    def attends_in(self) -> frozenset[str]:
        """Return that it answers decode steps, unless the cache drops tokens, and with `prefill` the prompt."""
        return frozenset([*["steps"] * (not self.evict), *["prompt"] * self.prefill])

    def attend(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Attend to what is kept; None where that is everything, or where the cache has dropped the rest."""
        now, keys = context.now, call.key.shape[2]
        most = self.n_sink + self.window
        options: dict[str, Any] = {"scaling": call.scaling, "softcap": call.softcap, "learned_sink": call.learned_sink}
        if call.window is not None or (now.length if now.is_prefill else keys) <= most:
            return None
        if now.is_prefill:
            if not self.prefill:
                return None
            token_mask = now.token_mask_on(call.query.device)
            rows_of = visible_to(call, now, slice(0, now.length))
            rank = _rank(token_mask, now.length, call.query.device)

            def rows_of_kept(rows: slice) -> Tensor:
                seen, own = rows_of(rows), rank[:, None, rows, None]
                place = rank[:, None, None, : seen.shape[-1]]
                return _only(seen, (place < self.n_sink) | (place > own - self.window))

            read = attend(call.query, call.prompt_keys, call.prompt_values, rows_of_kept, **options)
            return read.transpose(1, 2).to(call.query.dtype)
        if self.evict:
            return None
        index, rows, gone = self._kept(call, context)
        if is_eager_cpu(gone) and not bool(gone.any()):
            return None
        key, value = (keys_at(t, index) for t in (call.key, call.value))
        turn = self._turns(context.anatomy).get(call.layer)
        if turn is not None and self.n_sink:
            key = torch.cat([turn(key[:, :, : self.n_sink], gone), key[:, :, self.n_sink :]], dim=2)
        read = attend(call.query, key, value, lambda chosen: rows[:, :, chosen], **options)
        return read.transpose(1, 2).to(call.query.dtype)

    def _kept(self, call: AttentionCall, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return the kept keys (B, n), what queries see of them (B, 1, S, n), and how many were left out, (B,)."""
        found: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = context.scratch.setdefault("kept", {})
        if (device := call.query.device) in found:  # All full-attention layers of a pass have one mask.
            return found[device]
        length, keys = context.now.length, call.key.shape[2]
        every = slice(0, length)
        seen = visible_to(call, context.now, every)(every).expand(len(call.query), 1, -1, -1)[..., :keys]
        real = visible(seen).any(dim=2)[:, 0]
        rank = real.cumsum(dim=1) - 1
        total, reach = rank[:, -1:] + 1, max(self.window, length)
        kept = real & ((rank < self.n_sink) | (rank >= total - reach))
        # Real keys first, in order; what is behind them is seen by nobody.
        index = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, : self.n_sink + reach]
        rows = seen.gather(3, index[:, None, None].expand(-1, -1, length, -1))
        rows = _only(rows, kept.gather(1, index)[:, None, None])
        found[device] = index, rows, (total[:, 0] - self.n_sink - reach).clamp(min=0)
        return found[device]

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Return the head outputs that the kept tokens gave."""
        return output

    def last_hidden_state(self, hidden: Tensor, context: Context) -> None:
        """After a prefill, make the cache drop tokens, now and in later passes."""
        super().last_hidden_state(hidden, context)
        now, held = context.now, context.scratch.get("cache")
        if not self.evict or not now.is_prefill or held is None:
            return
        token_mask = now.token_mask
        padding = None if token_mask is None else (~token_mask).sum(dim=1)
        turns = self._turns(context.anatomy)
        stream_layers(held(), context.anatomy, turns, self.n_sink, self.window, padding)


def _rank(token_mask: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Place of every token among the real ones, (B or 1, S)."""
    every = torch.arange(length, device=device)[None]
    return every if token_mask is None else token_mask.cumsum(dim=1) - 1


def _only(seen: Tensor, kept: Tensor) -> Tensor:
    """Take all but some keys out of what queries see."""
    return seen & kept if seen.dtype == torch.bool else seen.masked_fill(~kept, float("-inf"))
