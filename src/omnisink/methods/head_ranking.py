"""Rank heads by their attention to the first token: the heads that do least, where that token is a sink."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError, shown
from omnisink.methods.criteria import Positions
from omnisink.methods.measure import record
from omnisink.results.disk import atomic_write
from omnisink.results.reading import parse_json

#: Written into the file of a ranking.
FORMAT = "omnisink.head_ranking.v1"

__all__ = ["HeadRanking", "rank_heads"]


@dataclass(frozen=True)
class HeadRanking:
    """The score of every head: the mean attention of all tokens of some texts to the first token.

    Attributes
    ----------
    scores : dict of int to tuple of float
        By layer, of each query head, between ``1 / T`` for texts of T tokens and 1.
    texts : int
        Over how many texts the scores are means.
    """

    scores: Mapping[int, tuple[float, ...]]
    texts: int

    def heads(
        self,
        ratio: float,
        per: Literal["model", "layer"] = "model",
        exclude_layers: Sequence[int] = (),
        group: int = 1,
    ) -> tuple[tuple[int, int], ...]:
        """Return the heads with the highest scores.

        Parameters
        ----------
        ratio : float
            Share of the heads of the layers that are not excluded, from 0 to 1, rounded to whole groups.
        per : {"model", "layer"}
            Whether heads compete with all others or with those of their layer.
        exclude_layers : sequence of int
            Layers whose heads are never returned.
        group : int
            Query heads that stay together, with the mean of their scores: those of one key/value head, or 1.

        Returns
        -------
        tuple of (int, int)
            Layer and query head, in order.
        """
        layers = [layer for layer in sorted(self.scores) if layer not in exclude_layers]
        pools = [layers] if per == "model" else [[layer] for layer in layers]
        chosen = []
        for pool in pools:
            means = {
                (layer, start): sum(self.scores[layer][start : start + group]) / group
                for layer in pool
                for start in range(0, len(self.scores[layer]), group)
            }
            best = sorted(means, key=lambda one: -means[one])[: how_many(ratio, len(means))]
            chosen += [(layer, start + j) for layer, start in best for j in range(group)]
        return tuple(sorted(chosen))

    def layer_scores(self) -> dict[int, float]:
        """Return the mean score of the heads of each layer."""
        return {layer: sum(row) / len(row) for layer, row in self.scores.items()}

    def save(self, path: str | Path) -> None:
        """Write the ranking to a JSON file, which `PruneSinkHeads(ranking=path)` reads."""
        content = {"format": FORMAT, "texts": self.texts, "scores": {str(k): v for k, v in self.scores.items()}}
        atomic_write(Path(path), (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> HeadRanking:
        """Read a ranking.

        Raises
        ------
        OmnisinkError
            If the file is missing or is not a ranking.
        """
        try:
            found = parse_json(Path(path).read_bytes(), path)
            if found["format"] != FORMAT:
                raise ValueError(f"its format is {shown(found['format'])}")
            return cls(
                {int(layer): tuple(map(float, row)) for layer, row in found["scores"].items()}, int(found["texts"])
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise OmnisinkError(
                f"{path} is not a ranking of heads, as rank_heads(...).save writes it: {error}"
            ) from None


def rank_heads(model: Any, texts: Iterable[Any], **inputs: Any) -> HeadRanking:
    """Score every head by how much all tokens of some texts attend to the first: ``S = (1 / T) sum_t A[t, 0]``.

    Row 0 is part of the mean and gives 1. One pass for each text; no attention map is made.

    Parameters
    ----------
    model : nn.Module, Loaded or Pipeline
        As for `record`.
    texts : iterable
        Calibration texts, or prompts as `record` takes them. Of padded batches, the first real tokens count.
    **inputs
        Further arguments of `record`.

    Returns
    -------
    HeadRanking
        The mean over the texts.

    Raises
    ------
    OmnisinkError
        If there is no text, or one of a single token only.
    """
    total: dict[int, Tensor] = {}
    count = 0
    for text in [texts] if isinstance(texts, str) else texts:
        found = record(model, text, criterion=Positions((0,)), received=False, **inputs)
        tokens = torch.as_tensor(found.token_mask).sum(dim=1)
        if int(tokens.min()) < 2:
            raise OmnisinkError("heads cannot be ranked on a text of one token: nothing else could attend to it")
        others = torch.as_tensor(found["mass"])[:, :, :, 0].double()  # (B, layer, H), the mean over all rows but row 0
        of_all = (1 + others * (tokens - 1)[:, None, None]) / tokens[:, None, None]
        for layer, row in zip(found.layers, of_all.sum(dim=0), strict=True):
            total[layer] = total.get(layer, torch.zeros_like(row)) + row
        count += len(tokens)
    if not count:
        raise OmnisinkError("heads cannot be ranked without a text")
    # Layers with fewer heads than others were filled up.
    return HeadRanking({k: tuple(v[~v.isnan()].div(count).tolist()) for k, v in total.items()}, count)


def how_many(ratio: float, of: int) -> int:
    """Return a share of some heads as a whole number, half rounded up."""
    return int(ratio * of + 0.5)
