"""OutRo restated from the paper's equations on a Llama, one sequence, one token and one head at a time, in float64.

Nothing of the package is used: attention, the median, the rotation and the relaxed rows are all written out here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

#: transformers itself calls torch in a way torch warns about, each time flex attention makes a mask.
FLEX_WARNING = pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")

SINK = 7
PEAK = 300.0


def tiny_llama(attn_implementation="sdpa", plant=True, seed=0, **settings):
    """Build a Llama of a few thousand weights in which token `SINK` has one massive activation."""
    config = LlamaConfig(
        **{
            "vocab_size": 96,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "attn_implementation": attn_implementation,
            "pad_token_id": 0,
            "eos_token_id": None,
            "bos_token_id": None,
            **settings,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.08)
            # As in trained models, the norms damp the massive channel: the rest of the sink token still counts.
            for layer in model.model.layers:
                layer.input_layernorm.weight[5] = 0.02
            model.model.embed_tokens.weight *= 0.5
            model.model.embed_tokens.weight[SINK, 5] = PEAK if plant else 0.0
    return model


def prompt(length, sinks=(0,), seed=0, vocab=96):
    """Make (1, length) token ids with `SINK` at the given positions."""
    ids = torch.randint(10, vocab, (1, length), generator=torch.Generator().manual_seed(seed + length))
    ids[0, list(sinks)] = SINK
    return ids


@dataclass
class PlainOutRo:
    """The method on one sequence. `prefill` takes the prompt's ids, `step` one generated token.

    Sinks are found by their massive activation, or by `channels` and `threshold` where channels are given.
    """

    model: LlamaForCausalLM
    gamma: float = 3.0
    tau: float = 0.1
    rotate: bool = True
    relax: bool = True
    decode: bool = True
    channels: tuple = ()
    threshold: float = 20.0
    keys: list = field(default_factory=list)
    values: list = field(default_factory=list)
    bias: dict = field(default_factory=dict)
    sinks: dict = field(default_factory=dict)
    relaxed: list = field(default_factory=list)

    def __post_init__(self):
        self.model = _doubled(self.model)

    def prefill(self, ids):
        """Return the logits of every prompt position, (S, vocabulary)."""
        return self._run(ids, is_prefill=True)

    def step(self, token):
        """Return the logits after one more token, (vocabulary,)."""
        return self._run(torch.tensor([[token]]), is_prefill=False)[-1]

    def _run(self, ids, is_prefill):
        decoder = self.model.model
        depth = len(decoder.layers)
        hidden = decoder.embed_tokens(ids)[0]
        start = 0 if is_prefill else self.keys[0].shape[1]
        position = torch.arange(start, start + len(hidden))[None]
        cos, sin = decoder.rotary_emb(hidden[None], position)
        ever = set()
        done = set()
        for number, layer in enumerate(decoder.layers):
            if is_prefill and number < depth - 2:
                self.sinks[number] = [t for t in range(len(hidden)) if self._is_sink(hidden, t)]
                ever |= set(self.sinks[number])
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden[None])
            split = (1, len(hidden), -1, attention.head_dim)
            query, key, value = (
                p(normed).view(split).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            if is_prefill:
                self.keys.append(key[0])
                self.values.append(value[0])
            else:
                self.keys[number] = torch.cat([self.keys[number], key[0]], dim=1)
                self.values[number] = torch.cat([self.values[number], value[0]], dim=1)
            output = self._attend(query[0], number, start, is_prefill, depth, ever, done)
            hidden = hidden + attention.o_proj(output.flatten(1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden[None]))[0]
        return self.model.lm_head(decoder.norm(hidden[None]))[0]

    def _is_sink(self, hidden, t):
        if self.channels:
            rms = float(hidden[t].pow(2).mean().sqrt())
            return any(abs(float(hidden[t, c])) / rms >= self.threshold for c in self.channels)
        median = hidden.abs().flatten().sort().values[(hidden.numel() - 1) // 2]
        return float(hidden[t].abs().max()) >= max(100.0, 1000.0 * float(median))

    def _attend(self, query, number, start, is_prefill, depth, ever, done):
        heads, length, width = query.shape
        keys, values = self.keys[number], self.values[number]
        groups = heads // keys.shape[0]
        here = self.sinks.get(number, []) if is_prefill else []
        if here:
            self.bias[number] = torch.stack([values[:, t] for t in here]).mean(dim=0)
        fresh = set()
        if self.relax and number % max(1, depth // 7) == 0:
            fresh = {t for t in here if t not in done}
            done |= fresh
            self.relaxed += [(number, 0, t) for t in sorted(fresh)]
        output = torch.zeros(length, heads, width, dtype=query.dtype)
        for t in range(length):
            reach = keys.shape[1] if t in fresh else start + t + 1
            for h in range(heads):
                weights = (query[h, t] @ keys[h // groups][:reach].T / width**0.5).softmax(dim=0)
                o = weights @ values[h // groups][:reach]
                turned = self.rotate and number in self.bias and (self.decode if not is_prefill else t not in ever)
                output[t, h] = self._turn(o, self.bias[number][h // groups]) if turned else o
        return output

    def _turn(self, o, v):
        if o.norm() == 0 or v.norm() == 0:
            return o
        cosine = torch.dot(o, v) / (o.norm() * v.norm())
        gate = torch.tanh(torch.relu(cosine) / self.tau)
        turned = o + gate * self.gamma * (torch.dot(o, v).abs() / v.norm() ** 2) * v
        return turned * o.norm() / turned.norm()


def plain_greedy(model, ids, count, **settings):
    """Return the first greedy tokens of the restatement."""
    plain = PlainOutRo(model, **settings)
    with torch.inference_mode():
        tokens = [int(plain.prefill(ids)[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(plain.step(tokens[-1]).argmax()))
    return tokens


def _doubled(model):
    twin = type(model)(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.double().eval()
