"""Methods that change attention weights, restated on a Llama in float64: row by row, over whole maps.

Of each method there is the rule for one row of one head, and where it looks at a layer as a whole, what it sees there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from tests.reference_outro import PlainOutRo


@dataclass
class PlainWeights(PlainOutRo):
    """Attention whose rows pass through `row`, after `look` has seen the layer's maps of the prompt."""

    images: tuple = ()
    audio: tuple = ()
    depth: int = 6
    prompt_length: int = 0

    def is_text(self, t):
        return t >= self.prompt_length or t not in {*self.images, *self.audio}

    def after_images(self, t):
        return self.is_text(t) and t > max(self.images)

    def look(self, layer, weights):
        """See the maps (H, S, S) of the prompt."""

    def row(self, layer, head, t, last, scores, weights):
        """Return the weights (T,) of token t, which is the last of its pass or not, from its scores and weights."""
        return weights

    def _run(self, ids, is_prefill):
        if is_prefill:
            self.prompt_length = ids.shape[1]
        return super()._run(ids, is_prefill)

    def _attend(self, query, number, start, is_prefill, depth, ever, done):
        heads, length, width = query.shape
        keys, values = self.keys[number], self.values[number]
        groups = heads // keys.shape[0]
        scores = query @ keys.repeat_interleave(groups, dim=0).mT / width**0.5
        hidden = torch.ones(length, keys.shape[1]).triu(start + 1).bool()
        weights = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)
        if is_prefill:
            self.look(number, weights)
        output = torch.zeros(length, heads, width, dtype=query.dtype)
        for t in range(length):
            for h in range(heads):
                reach = start + t + 1
                row = self.row(number, h, start + t, t == length - 1, scores[h, t, :reach], weights[h, t, :reach])
                output[t, h] = row @ values[h // groups][:reach]
        return output


@dataclass
class PlainVar(PlainWeights):
    """Attention of sinks goes to the image tokens that are none (Kang et al. 2025), in heads that look at images."""

    p: float = 0.6
    rho: float = 0.8
    least: float = 0.2
    layers: tuple = (2, 3, 4)
    sinks_at: tuple = ()
    donors: tuple = ()
    donated: float = 0.0

    def row(self, layer, head, t, last, scores, weights):
        sinks = set(self.sinks_at)
        if layer not in self.layers or not self.after_images(t) or not sinks & set(self.images):
            return weights
        receivers = [j for j in self.images if j not in sinks]
        image, received = sum(weights[j] for j in self.images), sum(weights[j] for j in receivers)
        if image < self.least or received / image < self.rho:
            return weights
        new, budget = weights.clone(), 0.0
        for j in range(len(weights)):
            share = self.p if j in sinks else self.donated if j in self.donors else 0.0
            new[j] = (1 - share) * weights[j]
            budget += share * weights[j]
        for j in receivers:
            new[j] += budget * weights[j] / received
        return new


@dataclass
class PlainPai(PlainWeights):
    """The scores of image tokens rise by a share of their size, in the last row (Liu et al. 2024)."""

    alpha: float = 0.2
    first: int = 2

    def row(self, layer, head, t, last, scores, weights):
        if layer < self.first or not last:
            return weights
        raised = scores.clone()
        for j in self.images:
            raised[j] += self.alpha * scores[j].abs()
        return raised.softmax(dim=-1)


@dataclass
class PlainAsd(PlainWeights):
    """The scores of cross-modal sinks rise (Jung et al. 2026); sinks are counted in the layers before."""

    strength: float = 0.2
    start: int = 3
    share: float = 0.5
    sinks_by_layer: dict = field(default_factory=dict)
    seen: dict = field(default_factory=dict)
    crossing: list | None = None

    def look(self, layer, weights):
        if layer < self.start:
            mean = weights.mean(dim=0)
            for t in {*self.images, *self.audio}:
                pulls = []
                for senders in (self.images, self.audio):
                    later = [mean[i, t] for i in senders if i > t]
                    pulls.append(sum(later) / len(later) if later else torch.tensor(0.0, dtype=weights.dtype))
                v, a = pulls
                self.seen.setdefault(t, []).append(float((v - a) / (v + a)) if v + a > 0 else 0.0)
        if layer == self.start:
            self.crossing = [
                *self._half(self.images, lambda score: score),
                *self._half(self.audio, lambda score: -score),
            ]

    def _half(self, tokens, order):
        counts = {t: sum(t in self.sinks_by_layer.get(layer, ()) for layer in range(self.start)) for t in tokens}
        marked = sorted((t for t in tokens if counts[t]), key=lambda t: (-counts[t], t))
        often = marked[: max(1, int(len(marked) * self.share))] if marked else []
        by_score = sorted(often, key=lambda t: (order(sum(self.seen[t]) / len(self.seen[t])), t))
        return by_score[: -(-len(by_score) // 2)]

    def row(self, layer, head, t, last, scores, weights):
        if layer < self.start or not self.is_text(t):
            return weights
        raised = scores.clone()
        for j in self.crossing:
            if j < len(scores):
                raised[j] += self.strength * scores[j].abs()
        return raised.softmax(dim=-1)


@dataclass
class PlainAct(PlainWeights):
    """Tokens that receive much, but for the first of them, keep a part of it; the rest goes to all others."""

    beta: float = 0.4
    threshold: float = 0.1
    heads: tuple | None = None
    taken: dict = field(default_factory=dict)

    def look(self, layer, weights):
        length = weights.shape[1]
        for h in range(len(weights)):
            mean = [float(sum(weights[h, i, j] for i in range(j, length)) / (length - j)) for j in range(length)]
            self.taken[layer, h] = [j for j in range(length) if mean[j] > self.threshold][1:]

    def row(self, layer, head, t, last, scores, weights):
        chosen = 2 <= layer < self.depth - 1 if self.heads is None else (layer, head) in self.heads
        taken = [j for j in self.taken[layer, head] if j < len(weights)]
        if not chosen or not taken:
            return weights
        new = weights.clone()
        freed = sum((1 - self.beta) * weights[j] for j in taken)
        rest = [j for j in range(len(weights)) if j not in taken]
        whole = sum(weights[j] for j in rest)
        for j in taken:
            new[j] = self.beta * weights[j]
        for j in rest:
            new[j] += freed * weights[j] / whole
        return new


@dataclass
class PlainVisFlow(PlainWeights):
    """Attention to salient image tokens grows, that to image sinks, text and system tokens shrinks."""

    salient: float = 20.0
    sink: float = 0.5
    less_text: float = 0.5
    less_system: float = 0.5
    text_over: float = 0.5
    system_over: float = 0.5
    deviations: float = 1.0
    tokens: bool = True
    heads: bool = True
    first: int = 2
    last_text: int = 7
    factors: dict = field(default_factory=dict)

    def look(self, layer, weights):
        heads, length, _ = weights.shape
        system = [t for t in range(length) if self.is_text(t) and t < min(self.images)]
        text = [t for t in range(length) if self.is_text(t) and t > min(self.images)]
        rows = [t for t in range(length) if self.after_images(t)]
        received = {j: sum(float(weights[:, i, j].mean()) for i in self.images if i != j) for j in self.images}
        most = max(received.values())
        mean = {
            name: [float(sum(weights[h, i, j] for i in rows for j in columns)) / len(rows) for h in range(heads)]
            for name, columns in (("image", self.images), ("text", text), ("system", system))
        }
        average = sum(mean["image"]) / heads
        spread = math.sqrt(sum((m - average) ** 2 for m in mean["image"]) / heads)
        for h in range(heads):
            factor = dict.fromkeys(range(length), 1.0)
            factor["later"] = 1.0
            if self.tokens and layer >= self.first:
                for j in self.images:
                    if received[j] > most / 2:
                        factor[j] = self.sink
                    elif received[j] > most / 20:
                        factor[j] = self.salient
            visual = mean["image"][h] > average + self.deviations * spread
            if self.heads and not visual:
                if layer <= self.last_text and mean["text"][h] > self.text_over:
                    factor.update(dict.fromkeys([*text, "later"], 1 - self.less_text))
                if mean["system"][h] > self.system_over:
                    factor.update(dict.fromkeys(system, 1 - self.less_system))
            self.factors[layer, h] = factor

    def row(self, layer, head, t, last, scores, weights):
        if not self.after_images(t):
            return weights
        factor = self.factors[layer, head]
        new = torch.stack([w * factor.get(j, factor["later"]) for j, w in enumerate(weights)])
        return new / new.sum()
