"""Models that hold a language model beside other parts: one is found, several are named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperModel,
)

from omnisink import OutRo, UnsupportedModelError, find_sinks
from omnisink.decoder.anatomy import read_anatomy
from omnisink.methods.measure import record
from tests.decoder.outside_llamas import Composite
from tests.reference_outro import prompt, tiny_llama

_SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


class Past(nn.Module):
    """Attention that does not ask the interface."""

    def forward(self, hidden_states, **kwargs):
        return hidden_states, None


class Holder(nn.Module):
    """A module without a configuration."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def eyes():
    return SiglipVisionModel(SiglipVisionConfig(**_SMALL, image_size=28, patch_size=14))


def ears():
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    return WhisperModel(WhisperConfig(d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)).encoder


def reader():
    """An encoder of texts, as Q-Formers are: it has a vocabulary."""
    return BertModel(BertConfig(**_SMALL, vocab_size=40))


def talker():
    return LlamaModel(LlamaConfig(**_SMALL, vocab_size=50))


def past_interface():
    model = tiny_llama()
    for layer in model.model.layers:
        layer.self_attn = Past()
    return model


def held_by_dictionary():
    model = Composite(named=True, llm=tiny_llama())
    model.config.llm_config = model.config.llm_config.to_dict()
    return model


FOUND = {
    "named by the configuration": lambda: Composite(named=True, llm=tiny_llama()),
    "named by a dictionary": held_by_dictionary,
    "not named": lambda: Composite(llm=tiny_llama()),
    "behind towers": lambda: Composite(eyes=eyes(), ears=ears(), reader=reader(), llm=tiny_llama()),
    "named, beside a talker": lambda: Composite(named=True, llm=tiny_llama(), tts=talker()),
    "compiled": lambda: Composite(llm=torch.compile(tiny_llama(), backend="eager")),
    "without a configuration": lambda: Holder(eyes=eyes(), llm=tiny_llama()),
}
REFUSED = {
    "a talker": (lambda: Composite(llm=tiny_llama(), tts=talker()), "pass the one you mean, model.llm or model.tts$"),
    "a talker of the same size": (
        lambda: Composite(named=True, llm=tiny_llama(), tts=tiny_llama()),
        "pass the one you mean, model.llm or model.tts$",
    ),
    "a talker, past the interface": (
        lambda: Composite(llm=past_interface(), tts=talker()),
        "pass the one you mean, model.llm or model.tts$",
    ),
    "past the interface": (
        lambda: Composite(eyes=eyes(), llm=past_interface()),
        r"Composite\.llm cannot be reached .* does not use the attention interface",
    ),
    "named, past the interface, a talker": (
        lambda: Composite(named=True, llm=past_interface(), tts=talker()),
        r"Composite\.llm cannot be reached .* does not use the attention interface",
    ),
    "towers only": (lambda: Composite(eyes=eyes(), reader=reader()), "no list of decoder layers .* configuration$"),
    "replicas": (
        lambda: nn.DataParallel(tiny_llama()),
        r"no configuration; pass the language model in it, model\.mod",
    ),
    "no model": (lambda: Holder(part=nn.Linear(2, 2)), "it has no configuration$"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_the_language_model_is_found(kind):
    model = FOUND[kind]()
    anatomy = read_anatomy(model)
    assert anatomy.path == "llm"
    assert anatomy.text_model is read_anatomy(model.llm).text_model
    with OutRo()(model) as trace:
        pass
    assert trace.decoder == "llm"
    assert trace.is_empty


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_clear_is_named(kind):
    build, message = REFUSED[kind]
    with pytest.raises(UnsupportedModelError, match=message):
        read_anatomy(build())


def test_a_method_acts_as_on_the_language_model_itself():
    ids = prompt(11, (0, 4))
    model, plain = Composite(eyes=eyes(), llm=tiny_llama()), tiny_llama()
    with torch.inference_mode():
        with OutRo()(model) as trace:
            found = model(input_ids=ids).logits
        with OutRo()(plain) as own:
            expected = plain(input_ids=ids).logits
        assert torch.equal(found, expected)
        assert not torch.equal(found, model(input_ids=ids).logits)
    assert str(trace).replace("on model.llm; ", "") == str(own)
    assert "on model.llm; " in trace._repr_html_()
    assert find_sinks(model, input_ids=ids).to_json() == find_sinks(plain, input_ids=ids).to_json()
    assert record(model, input_ids=ids) == record(plain, input_ids=ids)
