"""Llamas as code from outside transformers writes them: the same weights, with other names and other calls."""

from __future__ import annotations

import types

from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaModel,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from tests.reference_outro import tiny_llama


class OldName(LlamaDecoderLayer):
    """Takes its cache as layers did up to transformers 4.55."""

    def forward(self, hidden_states, attention_mask=None, position_ids=None, past_key_value=None, **kwargs):
        return super().forward(
            hidden_states, attention_mask, position_ids=position_ids, past_key_values=past_key_value, **kwargs
        )


class OwnName(LlamaDecoderLayer):
    """Takes its cache by a name of its own."""

    def forward(self, hidden_states, attention_mask=None, memory=None, position_ids=None, **kwargs):
        return super().forward(
            hidden_states, attention_mask, position_ids=position_ids, past_key_values=memory, **kwargs
        )


class NoCache(LlamaDecoderLayer):
    """Finds its cache on itself."""

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        return super().forward(hidden_states, attention_mask, past_key_values=self.kept, **kwargs)


def by_old_name(layer, hidden, mask, position_ids, cache, rotary):
    return layer(
        hidden, attention_mask=mask, position_ids=position_ids, past_key_value=cache, position_embeddings=rotary
    )


def by_position(layer, hidden, mask, position_ids, cache, rotary):
    return layer(hidden, mask, position_ids, cache, position_embeddings=rotary)


def by_own_name(layer, hidden, mask, position_ids, cache, rotary):
    return layer(hidden, mask, memory=cache, position_ids=position_ids, position_embeddings=rotary)


def on_itself(layer, hidden, mask, position_ids, cache, rotary):
    layer.__dict__["kept"] = cache
    return layer(hidden, mask, position_ids=position_ids, position_embeddings=rotary)


def past_hooks(layer, hidden, mask, position_ids, cache, rotary):
    return layer.forward(
        hidden, attention_mask=mask, position_ids=position_ids, past_key_values=cache, position_embeddings=rotary
    )


def last_past_hooks(layer, hidden, mask, position_ids, cache, rotary):
    call = layer.forward if layer.self_attn.layer_idx == 2 else layer
    return call(
        hidden, attention_mask=mask, position_ids=position_ids, past_key_values=cache, position_embeddings=rotary
    )


#: How layers are called, and their class.
CALLS = {
    "old name": (by_old_name, OldName),
    "old name by position": (by_position, OldName),
    "a name of its own": (by_own_name, OwnName),
    "on the layer itself": (on_itself, NoCache),
    ".forward() of all": (past_hooks, LlamaDecoderLayer),
    ".forward() of one": (last_past_hooks, LlamaDecoderLayer),
}


class Outside(LlamaModel):
    """Runs its layers by a function of one's choice."""

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None, **kwargs
    ):
        hidden = self.embed_tokens(input_ids)
        if use_cache is not False and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            held = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = held + hidden.new_ones(1, hidden.shape[1]).cumsum(1).long() - 1
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        rotary = self.rotary_emb(hidden, position_ids=position_ids)
        for layer in self.layers:
            hidden = self.run(layer, hidden, mask, position_ids, past_key_values, rotary)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), past_key_values=past_key_values)


class OwnMask(LlamaModel):
    """Calls its mask otherwise."""

    def forward(self, input_ids=None, padding=None, **kwargs):
        return super().forward(input_ids, attention_mask=padding, **kwargs)


class MaskHandedOn(LlamaModel):
    """Names no arguments but its ids."""

    def forward(self, input_ids=None, **kwargs):
        return super().forward(input_ids, **kwargs)


class ThroughSuper(LlamaAttention):
    """Its forward is its parent's."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class ThroughMethod(LlamaAttention):
    """Its forward calls another method, which uses the interface."""

    def forward(self, *args, **kwargs):
        return self.attend(*args, **kwargs)

    def attend(self, *args, **kwargs):
        return LlamaAttention.forward(self, *args, **kwargs)


class ThroughFunction(LlamaAttention):
    """Its forward calls a function of its file, which uses the interface."""

    def forward(self, *args, **kwargs):
        return attend(self, *args, **kwargs)


attend = LlamaAttention.forward


def outside_llama(how, **settings):
    """Build a `tiny_llama` whose layers are called in one of the ways of `CALLS`."""
    run, layer_class = CALLS[how]
    model = tiny_llama(**settings)
    model.model.__class__ = Outside
    model.model.__dict__["run"] = run
    for layer in model.model.layers:
        layer.__class__ = layer_class
    return model


def with_text_model(kind, **settings):
    """Build a `tiny_llama` whose text model is of another class; it hands its mask on as that class calls it."""
    model = tiny_llama(**settings)
    model.model.__class__ = kind
    if kind is OwnMask:
        model.forward = types.MethodType(_lm_forward, model)
    return model


def _lm_forward(self, input_ids=None, attention_mask=None, **kwargs):
    output = self.model(input_ids, padding=attention_mask, **kwargs)
    return types.SimpleNamespace(logits=self.lm_head(output.last_hidden_state), past_key_values=output.past_key_values)


def with_attention(kind, **settings):
    """Build a `tiny_llama` whose attention modules are of another class."""
    model = tiny_llama(**settings)
    for layer in model.model.layers:
        layer.self_attn.__class__ = kind
    return model


class OwnEager(LlamaAttention):
    """Asks the interface for everything but eager attention, as files of transformers 4.48 do."""

    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            p(hidden_states).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attention = eager_attention_forward
        if self.config._attn_implementation != "eager":
            attention = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        output, weights = attention(self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling)
        return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights


class CompositeConfig(PreTrainedConfig):
    """Calls the configuration of its language model otherwise."""

    model_type = "omnisink_test_composite"

    def __init__(self, llm_config=None, **kwargs):
        super().__init__(**kwargs)
        self.llm_config = llm_config


class Composite(PreTrainedModel):
    """Holds parts by the names that it is given; the configuration names the first of them only if asked to."""

    config_class = CompositeConfig

    def __init__(self, named=False, **parts):
        first = next(iter(parts.values()))
        super().__init__(CompositeConfig(llm_config=first.config if named else None))
        self.projector = nn.Linear(2, 2)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, **kwargs):
        return self.llm(**kwargs)
