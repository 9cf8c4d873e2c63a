"""SinkRouter restated on a Llama, one sequence, one token and one head at a time, in float64; OutRo may follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tests.reference_outro import PlainOutRo


@dataclass
class PlainRouter(PlainOutRo):
    """The model under SinkRouter, and then under OutRo where `rotate` or `relax` says so.

    `threshold` is a function of the number of tokens attended to. Scores and decisions are kept as (layer, key/value
    head) to value, one dictionary for each step.
    """

    rotate: bool = False
    relax: bool = False
    threshold: Callable[[int], float] = lambda length: 0.55
    surrogate: str = "zero"
    skip_layers: tuple = (0, 1)
    anchor: str = "first"
    scores: list = field(default_factory=list)
    routed: list = field(default_factory=list)
    anchors: dict = field(default_factory=dict)
    sizes: dict = field(default_factory=dict)

    def _is_sink(self, hidden, t):
        self.sizes[t] = float(hidden[t].abs().max())
        return super()._is_sink(hidden, t)

    def _attend(self, query, number, start, is_prefill, depth, ever, done):
        if is_prefill:
            here = self.sinks.get(number) if self.anchor == "sinks" else None
            before = self.anchors.get(number - 1, 0)
            self.anchors[number] = max(here, key=lambda t: self.sizes[t]) if here else before
            return super()._attend(query, number, start, is_prefill, depth, ever, done)
        if number == 0:
            self.scores.append({})
            self.routed.append({})
        heads, _, width = query.shape
        keys, values = self.keys[number], self.values[number]
        groups, at = heads // len(keys), self.anchors[number]
        output = torch.zeros(1, heads, width, dtype=query.dtype)
        for g in range(len(keys)):
            own = query[g * groups : (g + 1) * groups, 0]
            cosines = [torch.dot(q, keys[g, at]) / (q.norm() * keys[g, at].norm()) for q in own]
            score = float(sum(cosines) / groups)
            is_routed = number not in self.skip_layers and score > self.threshold(keys.shape[1])
            if number not in self.skip_layers:
                self.scores[-1][number, g], self.routed[-1][number, g] = score, is_routed
            for h in range(g * groups, (g + 1) * groups):
                o = (query[h, 0] @ keys[g].T / width**0.5).softmax(dim=0) @ values[g]
                if is_routed:
                    o = values[g, at] if self.surrogate == "value" else torch.zeros_like(o)
                turned = self.rotate and self.decode and number in self.bias
                output[0, h] = self._turn(o, self.bias[number][g]) if turned else o
        return output

    def clearance(self):
        """Return how far the nearest score is from its threshold: below rounding a decision may differ."""
        prompt = self.keys[0].shape[1] - len(self.scores)
        return min(
            abs(score - self.threshold(prompt + 1 + step))
            for step, found in enumerate(self.scores)
            for score in found.values()
        )
