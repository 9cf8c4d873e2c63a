"""Attention knockout: what the model is without its sinks, or without the tokens that the sink ignores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import keys_in_use, visible_to
from omnisink.errors import OmnisinkError
from omnisink.maths.decomposition import attend, attention_from
from omnisink.methods.hiding import without_keys
from omnisink.methods.prompt_sinks import over_keys
from omnisink.methods.sink_method import SinkMethod

#: Key under which a cache keeps the tokens that a pruning took away.
_PRUNED = "pruned"


@dataclass(frozen=True)
class KnockoutTokens(SinkMethod):
    """Attention knockout of what a criterion marks, layer by layer.

    No other token attends to a masked one, exactly as if the mask had excluded it. A masked token's own row is left as
    it is. Works on every attention backend, as the rows are computed anew in float32 from queries, keys and values.
    What another method did to the same head outputs before is lost thereby: attach this one first.

    Parameters
    ----------
    criterion, layers
        See `SinkMethod`.
    """

    source: ClassVar[str] = "attention knockout: Geva, Bastings, Filippova, Globerson (arXiv 2304.14767)"
    derived: ClassVar[str] = "that sinks are what is knocked out, at every layer"
    cost: ClassVar[str] = "the attention of a layer with a sink once more, in float32"
    measured: ClassVar[str] = (
        "Sinks knocked out: +0.81 nats (0.75 to 0.88) on SmolLM2-135M, +0.21 (0.08 to 0.37) on SmolOmni; as many "
        "random tokens: at most +0.01"
    )

    def tokens_to_mask(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Return the prompt's tokens to mask at this layer, (B, S) bool, or None."""
        return self.prompt_sinks(call, context)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Compute the rows anew without the masked tokens."""
        masked = self.tokens_to_mask(call, context)
        if masked is None:
            return output
        length, keys = context.now.length, keys_in_use(call, context.now)
        own, unchanged = masked, ~masked.any(dim=1, keepdim=True)
        mask = visible_to(call, context.now, slice(0, length))
        if not context.now.is_prefill:
            own = masked.new_zeros(len(masked), length)
        value = call.value[:, :, :keys].float()
        columns = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)  # the ones tell who sees nothing at all
        read = attend(
            call.query,
            call.key[:, :, :keys],
            columns,
            without_keys(mask, over_keys(masked, keys)),
            scaling=call.scaling,
            softcap=call.softcap,
        ).transpose(1, 2)
        stay = (own | unchanged)[:, :, None, None] | (read[..., -1:] == 0)
        return torch.where(stay, output, read[..., :-1].to(output.dtype))

    def attention_input(self, call: AttentionCall, context: Context) -> AttentionCall:
        """Refuse learned sink logits, which have no place among the tokens that are left."""
        if call.learned_sink is not None:
            raise OmnisinkError(f"{type(self).__name__} does not know what learned sink logits should become")
        return call


@dataclass(frozen=True)
class PruneTokens(KnockoutTokens):
    """Rank tokens by the attention of the sink's query, and mask all but the best from the next layer on.

    The sink's query sees the whole prompt (its mask is relaxed for the ranking alone), averaged over heads; with more
    than one sink the first real one ranks. The paper prunes video and audio tokens at layer 5 and keeps 20 %.

    Parameters
    ----------
    criterion, layers
        See `SinkMethod`; where the sink has to be known before it is massive, give `Positions`.
    candidates : Tensor
        (B, S) bool, the tokens that may be pruned.
    layer : int
        The layer that ranks.
    keep : float
        Share of the candidates to keep, over 0 and up to 1; at least one is kept.
    by : {"sink", "random"}
        What ranks.
    seed : int
        Of the random ranks.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    candidates: Tensor = field(default_factory=lambda: torch.zeros(1, 0, dtype=torch.bool), compare=False, repr=False)
    layer: int = 5
    keep: float = 0.2
    by: str = "sink"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be over 0 and at most 1, got {self.keep}")
        if self.by not in ("sink", "random"):
            raise ValueError(f"by must be 'sink' or 'random', got {self.by!r}")

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a ranking layer whose attention cannot be reached."""
        super().check(anatomy)
        if self.layer not in anatomy.attention:
            raise OmnisinkError(f"layer {self.layer} has no attention that can be reached")

    def chosen(self, layer: int, depth: int) -> bool:
        """Sinks are wanted at the ranking layer alone."""
        return layer == self.layer

    def tokens_to_mask(self, call: AttentionCall, context: Context) -> Tensor | None:
        """Rank at the ranking layer; return what was pruned after it."""
        if call.layer == self.layer and context.now.is_prefill:
            context.now.state.tensors[_PRUNED] = self._rank(call, context)
        return self.among_keys(call, context.now.state.tensors[_PRUNED], context) if call.layer > self.layer else None

    def _rank(self, call: AttentionCall, context: Context) -> Tensor:
        length, device = context.now.length, call.query.device
        candidates, token_mask = self.candidates.to(device), context.now.token_mask_on(device)
        if candidates.shape != (context.now.batch, length) or candidates.dtype != torch.bool:
            raise OmnisinkError(
                f"candidates must be bool of the prompt's shape {(context.now.batch, length)}, got {candidates.dtype} "
                f"{tuple(candidates.shape)}"
            )
        if token_mask is not None:
            candidates = candidates & token_mask
        sinks = self.prompt_sinks(call, context)
        if self.by == "random":
            draws = torch.rand(length, generator=torch.Generator().manual_seed(self.seed)).to(device)
            # Counted from the first real token, so that padding does not move them.
            place = torch.ones_like(candidates) if token_mask is None else token_mask
            scores = draws[(place.cumsum(dim=1) - 1).clamp(min=0)]
        elif sinks is None or not bool(sinks.any(dim=1).all()):
            raise OmnisinkError(f"a prompt has no sink at layer {self.layer} to rank its tokens; give Positions")
        else:
            first = sinks.int().argmax(dim=1)
            scores = attention_from(call.query, call.prompt_keys, first, token_mask, scaling=call.scaling).mean(dim=1)
        # Less what rounding may have added to the product: 28 % of 25 tokens are 7, not 7.000000000000001.
        count = (candidates.sum(dim=1).double() * self.keep - 1e-6).ceil().clamp(min=1)
        rank = scores.masked_fill(~candidates, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
        return candidates & (rank >= count[:, None])
