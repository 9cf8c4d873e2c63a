"""ACT: sinks but for the first keep a part of their attention, and all other tokens get the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.visibility import keys_in_use, visible_to
from omnisink.errors import OmnisinkError
from omnisink.maths.head_sets import head_shares
from omnisink.maths.host import is_eager_cpu
from omnisink.methods.base import Method
from omnisink.methods.presets import Preset
from omnisink.methods.ranges import check_layer_range, check_range, check_some_layer, layer_range
from omnisink.methods.sets import marks_over_keys, received_from_sets
from omnisink.methods.space import FloatRange, Range

#: With a layer, the key under which a cache keeps the sinks of each head of its prompts, (B, h, S).
_SINKS = "sinks of heads"


@dataclass(frozen=True)
class ACT(Method):
    """Attention calibration: in chosen heads, sinks beside the first keep a part of their attention.

    In a prefill a head's sinks are the tokens that receive more than `threshold` on average from the tokens that see
    them. The first of them is taken for the initial sink and left as it is. Of the attention to the others every row
    keeps `beta`, and what this frees goes to all other tokens that the row sees, in proportion to what each has.

    Derived by omnisink: generated tokens use the sinks that the prompt had; the release scores prompts only, one at a
    time. With padding, averages are taken over real tokens.

    Parameters
    ----------
    heads : tuple of (int, int), optional
        Layer and query head of those to act on. The paper chooses them on a calibration set, by what each does to the
        accuracy when only it is changed. None is all heads of layers ``start:stop``: run so, nothing is chosen.
    threshold : float
        Least average attention of a sink; the release has 0.1.
    alpha : float, optional
        Where given, the threshold is ``alpha / N`` with N the tokens of the prompt, as in the paper. Its value 5, the
        preset `paper`, comes from notes on the paper and was not verified.
    beta : float
        Share that a sink keeps.
    start, stop : int, int or None
        Layers of all heads, as a slice of the model's; no limit to `heads`.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    heads: tuple[tuple[int, int], ...] | None = None
    threshold: float = 0.1
    alpha: float | None = None
    beta: float = 0.4
    start: int = 2
    stop: int | None = -1

    watches_steps: ClassVar[bool] = False
    source: ClassVar[str] = "Yu et al., ICML 2024 (arXiv 2406.15765)"
    licence: ClassVar[str] = "no licence file; its README says Apache-2.0"
    derived: ClassVar[str] = (
        "decode steps, which use the sinks of the prompt; batches with padding; all heads where none are chosen"
    )
    cost: ClassVar[str] = "two more attentions of the chosen heads in a prefill, one in a decode step"
    needs: ClassVar[str] = "a choice of heads, made on a calibration set; without one all heads are changed"
    calibrated: ClassVar[tuple[str, ...]] = ("heads",)
    tested: ClassVar[str] = "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar[Mapping[str, Range]] = {"beta": FloatRange(0.05, 0.95), "threshold": FloatRange(0.02, 0.5)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset("The paper's threshold of 5 / N; the 5 was not verified.", {"alpha": 5.0})
    }

    def __post_init__(self) -> None:
        if self.heads is not None:
            object.__setattr__(self, "heads", tuple((int(layer), int(head)) for layer, head in self.heads))
        check_range("threshold", self.threshold, 0.0, 1.0)
        if self.alpha is not None:
            check_range("alpha", self.alpha, 0.0)
        check_range("beta", self.beta, 0.0, 1.0)
        check_layer_range(self.start, self.stop)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse layers that the model does not have."""
        if self.heads is None:
            check_some_layer(self.start, self.stop, len(anatomy.layers), "ACT")
        elif missing := sorted({layer for layer, _ in self.heads} - anatomy.attention.keys()):
            raise OmnisinkError(f"the model has no attention that can be reached at layers {missing}")

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Find the sinks of the heads in a prefill, and weigh them anew in every pass."""
        now = context.now
        chosen = self._heads_of(call.layer, output.shape[2], len(context.anatomy.layers))
        if self.beta == 1 or not chosen:
            return output
        part = call if len(chosen) == output.shape[2] else _only(call, chosen)
        if now.is_prefill:
            sinks = self._sinks(part, context)
            if is_eager_cpu(sinks) and not bool(sinks.any()):
                return output
            now.state.tensors[_SINKS, call.layer] = sinks
        elif (_SINKS, call.layer) not in now.state.tensors:
            return output
        sinks = now.state.tensors[_SINKS, call.layer]
        keys = keys_in_use(call, now)
        # To the tokens that keep all of their attention; what sinks give is the rest of the head output.
        kept, mass, moved = head_shares(
            part.query,
            part.key[:, :, :keys],
            part.value[:, :, :keys],
            ~marks_over_keys(call, context, sinks[:, :, None])[:, :, 0],
            visible_to(call, now, slice(0, now.length)),
            scaling=call.scaling,
            softcap=call.softcap,
            learned_sink=part.learned_sink,
        )
        changes = (moved > 0) & (mass > 0)
        grown = (mass + moved) / mass.masked_fill(~changes, 1.0)
        kept, changes, grown = kept.transpose(1, 2), changes.mT[..., None], grown.mT[..., None]  # (B, n, h, ...)
        old = output[:, :, chosen]
        new = self.beta * old.float() + (1.0 - self.beta) * grown * kept
        result = output.clone()
        result[:, :, chosen] = torch.where(changes, new.to(output.dtype), old)
        return result

    def _heads_of(self, layer: int, heads: int, depth: int) -> list[int]:
        if self.heads is None:
            return list(range(heads)) if layer in layer_range(self.start, self.stop, depth) else []
        chosen = sorted({head for at, head in self.heads if at == layer})
        if outside := [head for head in chosen if not 0 <= head < heads]:
            raise OmnisinkError(f"layer {layer} has heads 0 to {heads - 1}, not {outside}")
        return chosen

    def _sinks(self, call: AttentionCall, context: Context) -> Tensor:
        """Mark the sinks of each head of a prompt, the first of each left out, (B, h, S)."""
        now = context.now
        token_mask = now.token_mask_on(call.query.device)
        if token_mask is None:
            token_mask = torch.ones(now.batch, now.length, dtype=torch.bool, device=call.query.device)
        received, count = received_from_sets(call, context, token_mask[:, None])
        mean = received[:, :, 0] / count.clamp(min=1.0)
        threshold: float | Tensor = self.threshold
        if self.alpha is not None:
            threshold = self.alpha / token_mask.sum(dim=1)[:, None, None]
        marked = mean > threshold
        return marked & (marked.cumsum(dim=2) > 1)


def _only(call: AttentionCall, heads: list[int]) -> AttentionCall:
    """Return a call with some of its query heads, each of which has its key/value head by itself."""
    groups = call.query.shape[1] // call.key.shape[1]
    shared = [head // groups for head in heads]
    options = dict(call.options)
    for name in ("s_aux", "sinks"):
        if isinstance(options.get(name), Tensor):
            options[name] = options[name][heads]
    return replace(
        call, query=call.query[:, heads], key=call.key[:, shared], value=call.value[:, shared], options=options
    )
