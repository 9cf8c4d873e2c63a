"""Prune the heads that attend to the first token most: where that token is a sink, they do least."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.errors import OmnisinkError
from omnisink.maths.bounds import whole_numbers
from omnisink.methods.base import Method
from omnisink.methods.head_ranking import HeadRanking, how_many
from omnisink.methods.presets import Preset
from omnisink.methods.sets import received_from
from omnisink.methods.space import Choices, FloatRange


@dataclass(frozen=True)
class PruneSinkHeads(Method):
    """Remove the heads whose tokens attend to the first token most (Sok et al.; arXiv 2601.06787).

    A head's score is the mean attention of all tokens of calibration texts to the first real one. The heads with the
    highest scores are removed, for every token of every pass. The ranking is made once for a model, by
    ``rank_heads(model, texts).save("heads.json")``, and given as ``ranking="heads.json"``. Without one, every prompt
    ranks the heads of each layer by its own attention. No code was released, and the paper's ratios could not be read:
    `ratio`, `exclude_layers`, the ranking by the prompt itself, `group` and `fill="value"` are this project's.

    Parameters
    ----------
    ratio : float
        Share of the heads of the layers that are not excluded, from 0 to 1.
    ranking : str, optional
        File of a `HeadRanking`.
    per : {"model", "layer"}
        Whether heads compete with all others, as the ranking has them, or with those of their layer. A prompt that
        ranks for itself does so layer by layer.
    exclude_layers : tuple of int
        Layers to leave as they are; attention to the first token is atypical in the first two.
    group : bool
        Remove all query heads of a key/value head or none of them, by their mean score.
    fill : {"zero", "value"}
        What a removed head gives: nothing, or the value of the first real token, which it gives where it attends to
        nothing else.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    ratio: float = 0.1
    ranking: str | None = None
    per: Literal["model", "layer"] = "model"
    exclude_layers: tuple[int, ...] = (0, 1)
    group: bool = False
    fill: Literal["zero", "value"] = "zero"

    watches_steps: ClassVar[bool] = False
    source: ClassVar[str] = "Sok et al. (arXiv 2601.06787)"
    licence: ClassVar[str] = "no code was released"
    derived: ClassVar[str] = (
        "the ratios, the layers left out, the ranking by the prompt itself, key/value groups, `fill=value`"
    )
    needs: ClassVar[str] = "a ranking of the model's heads over calibration texts, one pass each, or none"
    cost: ClassVar[str] = "without a ranking, the attention of a prefill once more; next to nothing otherwise"
    tested: ClassVar[str] = "sdpa and eager; dynamic and static caches; padding on both sides; beams"
    search_space: ClassVar = {"ratio": FloatRange(0.02, 0.5), "fill": Choices(("zero", "value"))}
    presets: ClassVar = {
        "value": Preset("Leave the value of the first token in place of a removed head.", {"fill": "value"}),
    }

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio must lie between 0 and 1, got {self.ratio}")
        for name, known in (("per", ("model", "layer")), ("fill", ("zero", "value"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        object.__setattr__(self, "exclude_layers", whole_numbers("exclude_layers", self.exclude_layers))

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a ranking of another model."""
        self._ranked(anatomy)

    def _ranked(self, anatomy: Anatomy) -> dict[int, list[int]] | None:
        """Return the heads to remove by layer; None where prompts rank for themselves."""
        if self.ranking is None:
            return None
        found = HeadRanking.load(self.ranking)
        config: Any = anatomy.text_model.config
        heads = int(config.num_attention_heads)
        if found.scores.keys() != anatomy.attention.keys() or any(len(row) != heads for row in found.scores.values()):
            raise OmnisinkError(
                f"{self.ranking} ranks the heads of another model: rank those of {type(anatomy.model).__name__}, "
                f"which has {len(anatomy.attention)} layers with attention that can be reached, and {heads} heads"
            )
        group = heads // int(getattr(config, "num_key_value_heads", None) or heads) if self.group else 1
        chosen: dict[int, list[int]] = {}
        for layer, head in found.heads(self.ratio, self.per, self.exclude_layers, group):
            chosen.setdefault(layer, []).append(head)
        return chosen

    def begin(self, context: Context) -> None:
        """Read the ranking in a prefill."""
        if context.now.is_prefill:
            context.scratch["heads"] = self._ranked(context.anatomy)

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Remove the heads; a prompt without a ranking chooses them first."""
        tensors = context.now.state.tensors
        if context.now.is_prefill:
            removed = self._removed(call, output, context)
            if removed is None:
                return output
            tensors[call.layer] = removed
            if self.fill == "value":
                index = _first(context).to(output.device)[:, None, None, None]
                own = torch.take_along_dim(call.prompt_values, index, dim=2)  # (B, K, 1, D')
                tensors["value", call.layer] = own.repeat_interleave(output.shape[2] // own.shape[1], dim=1)[:, :, 0]
        elif call.layer not in tensors:
            return output
        return _without(tensors[call.layer], tensors.get(("value", call.layer)), output)

    def step(self, context: Context) -> Mapping[int, Callable[[Tensor], Tensor]]:
        """Remove the heads that the prefill chose."""
        state = context.now.state
        if state.prepared is None:
            layers = [layer for layer in state.tensors if isinstance(layer, int)]
            values = {layer: state.tensors.get(("value", layer)) for layer in layers}
            state.prepared = {layer: partial(_without, state.tensors[layer], values[layer]) for layer in layers}
        prepared: dict[int, Callable[[Tensor], Tensor]] = state.prepared
        return prepared

    def _removed(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor | None:
        """Return which heads to remove, (B, H) bool; None where there is none."""
        heads, ranked = output.shape[2], context.scratch["heads"]
        if ranked is not None:
            if call.layer not in ranked:
                return None
            chosen = torch.zeros(heads, dtype=torch.bool)
            chosen[ranked[call.layer]] = True
            return chosen.to(output.device).expand(len(output), -1)
        size = heads // call.key.shape[1] if self.group else 1
        count = how_many(self.ratio, heads // size)
        if call.layer in self.exclude_layers or count == 0:
            return None
        # The sum over rows; how many there are is the same for all heads.
        drawn = torch.take_along_dim(received_from(call, context), _first(context).to(output.device)[:, None, None], 2)
        mean = drawn[:, :, 0].unflatten(1, (-1, size)).mean(dim=2)
        best = mean.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < count
        return best.repeat_interleave(size, dim=1)


def _first(context: Context) -> Tensor:
    """Where the first real token of each prompt stands, (B,) int64."""
    token_mask = context.now.token_mask
    if token_mask is None:
        return torch.zeros(context.now.batch, dtype=torch.long, device=context.now.device)
    return token_mask.int().argmax(dim=1)


def _without(removed: Tensor, value: Tensor | None, output: Tensor) -> Tensor:
    """Put zero, or the value (B, H, D'), in place of heads (B, H) of the output (B, S, H, D')."""
    if value is None:
        return output.masked_fill(removed[:, None, :, None], 0.0)
    return torch.where(removed[:, None, :, None], value[:, None].to(output.dtype), output)
