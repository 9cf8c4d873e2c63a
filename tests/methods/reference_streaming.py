"""StreamingLLM restated from its paper on a Llama, one sequence, one token and one head at a time, in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tests.reference_outro import PlainOutRo


@dataclass
class PlainStreaming(PlainOutRo):
    """Keys are kept as they are before rotation, dropped one by one, and rotated when they are read.

    `shift` counts positions inside the cache; otherwise a key keeps the position of the text. With `whole` a prompt
    sees all of itself; otherwise it is fed one token at a time.
    """

    n_sink: int = 4
    window: int = 8
    shift: bool = False
    whole: bool = True
    raw: list = field(default_factory=list)
    read: list = field(default_factory=list)
    count: int = 0

    def prefill(self, ids):
        """Return the logits of every prompt position."""
        if self.whole:
            return self._feed(ids)
        return torch.cat([self._feed(ids[:, t : t + 1]) for t in range(ids.shape[1])])

    def step(self, token):
        """Return the logits after one more token."""
        return self._feed(torch.tensor([[token]]))[-1]

    def _feed(self, ids):
        decoder = self.model.model
        hidden = decoder.embed_tokens(ids)[0]
        new = len(hidden)
        for number, layer in enumerate(decoder.layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden[None])
            split = (1, new, -1, attention.head_dim)
            query, key, value = (
                p(normed).view(split).transpose(1, 2)[0]
                for p in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            if number == len(self.raw):
                self.raw.append([])
            for t in range(new):
                self.raw[number].append((self.count + t, key[:, t], value[:, t]))
            if self.count or new == 1:  # A pass after the prompt, or a prompt that is fed like one.
                first, last = self.raw[number][: self.n_sink], self.raw[number][self.n_sink :]
                self.raw[number] = first + last[-max(self.window, new) :]
            kept = self.raw[number]
            held = len(kept)
            output = torch.zeros(new, query.shape[0], query.shape[2], dtype=query.dtype)
            for t in range(new):
                own = held - new + t
                for h in range(query.shape[0]):
                    group = h * key.shape[0] // query.shape[0]
                    scores = []
                    for place, (position, k, _) in enumerate(kept[: own + 1]):
                        where = (own, place) if self.shift else (self.count + t, position)
                        q, k = self._turned(query[h, t], where[0]), self._turned(k[group], where[1])
                        scores.append(q @ k / len(q) ** 0.5)
                    weights = torch.stack(scores).softmax(dim=0)
                    output[t, h] = sum(w * v[group] for w, (_, _, v) in zip(weights, kept, strict=False))
            hidden = hidden + attention.o_proj(output.flatten(1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden[None]))[0]
        self.count += new
        return self.model.lm_head(decoder.norm(hidden[None]))[0]

    def _turned(self, vector, position):
        cos, sin = self.model.model.rotary_emb(vector[None, None], torch.tensor([[position]]))
        return apply_rotary_pos_emb(vector[None, None, None], vector[None, None, None], cos, sin)[0].flatten()
