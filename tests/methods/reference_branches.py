"""A Llama written out in float64, layer by layer, in which any token can be hidden; SID's branch and forks on it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


@dataclass
class PlainLlama:
    """One sequence. `keys` and `values` are those of each layer, (H_kv, T, D)."""

    model: object
    keys: dict = field(default_factory=dict)
    values: dict = field(default_factory=dict)

    def __post_init__(self):
        self.model = copy.deepcopy(self.model).double()
        self.model.set_attn_implementation("eager")
        self.decoder = self.model.model

    def embed(self, ids):
        return self.decoder.embed_tokens(ids)[0]

    def logits(self, hidden):
        return self.model.lm_head(self.decoder.norm(hidden))

    def layer(self, number, hidden, hidden_tokens=()):
        """Run a layer on the tokens that come next, (n, d), and return them and the weights (H, n, T)."""
        layer, start = self.decoder.layers[number], 0 if number not in self.keys else self.keys[number].shape[1]
        attention, normed = layer.self_attn, layer.input_layernorm(hidden[None])
        split = (1, len(hidden), -1, attention.head_dim)
        query, key, value = (
            p(normed).view(split).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        place = torch.arange(start, start + len(hidden))[None]
        query, key = apply_rotary_pos_emb(query, key, *self.decoder.rotary_emb(hidden[None], place))
        if start:
            key, value = (
                torch.cat([old[number][None], new], dim=2) for old, new in ((self.keys, key), (self.values, value))
            )
        self.keys[number], self.values[number] = key[0], value[0]
        groups = query.shape[1] // key.shape[1]
        scores = query[0] @ key[0].repeat_interleave(groups, dim=0).mT * attention.scaling
        seen = torch.arange(key.shape[2])[None] <= place[0][:, None]
        seen[:, list(hidden_tokens)] = False
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        weights = weights.nan_to_num(0.0)  # A token that sees nothing has no head output.
        read = weights @ value[0].repeat_interleave(groups, dim=0)
        hidden = hidden + attention.o_proj(read.transpose(0, 1).flatten(1))
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden)), weights


@dataclass
class PlainSid:
    """The branch of SID (Huo et al. 2025): from a layer on only the least attended of the offered tokens are seen."""

    plain: PlainLlama
    offered: tuple
    rank: int
    layer: int = 2
    hidden: list = field(default_factory=list)

    def read(self, ids):
        """Return the logits (n, V) of the tokens that come next."""
        stream, gone = self.plain.embed(ids), ()
        for number in range(len(self.plain.decoder.layers)):
            stream, weights = self.plain.layer(number, stream, gone)
            if number == self.layer - 1:
                seen = weights[:, -1].mean(dim=0)
                gone = tuple(sorted(sorted(self.offered, key=lambda t: float(seen[t]))[self.rank :]))
                self.hidden.append(gone)
        return self.plain.logits(stream)


@dataclass
class PlainForks:
    """Fork-merge decoding as `ForkMerge` describes it."""

    plain: PlainLlama
    video: tuple
    audio: tuple
    layer: int
    video_weight: float

    def prefill(self, ids):
        """Return the logits (S, V) of a prompt."""
        streams, runs = [], []
        for gone in (self.audio, self.video):
            stream = self.plain.embed(ids)
            self.plain.keys, self.plain.values = {}, {}
            for number in range(self.layer):
                stream, _ = self.plain.layer(number, stream, gone)
            streams.append(stream)
            runs.append((self.plain.keys, self.plain.values))
        (keys, values), (other_keys, other_values) = runs
        self.plain.keys = {n: self._merged(keys[n], other_keys[n]) for n in keys}
        self.plain.values = {n: self._merged(values[n], other_values[n]) for n in values}
        return self._rest(self._merged(*streams), self.layer)

    def step(self, token):
        """Return the logits (V,) after one more token."""
        return self._rest(self.plain.embed(token), 0)[-1]

    def _rest(self, stream, first):
        for number in range(first, len(self.plain.decoder.layers)):
            stream, _ = self.plain.layer(number, stream)
        return self.plain.logits(stream)

    def _merged(self, saw, heard):
        """Merge along the tokens, the dimension before the last."""
        made = self.video_weight * saw + (1 - self.video_weight) * heard
        made[..., list(self.video), :] = saw[..., list(self.video), :]
        made[..., list(self.audio), :] = heard[..., list(self.audio), :]
        return made
