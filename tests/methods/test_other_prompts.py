"""Contrast with other prompts: a disturbed instruction (ICD), and the text without its pictures (PAI's guidance)."""

from __future__ import annotations

import pytest
import torch

from omnisink import OmnisinkError, UnsupportedModelError
from omnisink.methods import AVCD, MAD, SID, VCD
from omnisink.methods.icd import ICD
from omnisink.methods.pai_guidance import PAIGuidance
from omnisink.methods.plausible import PlausibleTokens
from omnisink.methods.space import space_of
from omnisink.methods.twin_prompts import insert_tokens, without_tokens
from omnisink.verification.families import FAMILIES
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import reader, tiny

WORDS = (61, 62, 63)
SEES = ("qwen2_5_vl", "qwen3_vl", "qwen2_5_omni", "llava", "gemma3_vision", "internvl", "qwen2_audio")
#: Tiny models would say placeholders of pictures, which without a cache would be read as such.
SAYS = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": list(range(1, 20))}


def test_tokens_go_in_before_their_place_and_padding_stays_hidden():
    inputs = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
        "token_type_ids": torch.tensor([[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]),
    }
    made = insert_tokens(inputs, torch.tensor([4, -1]), [8, 9])
    assert made["input_ids"][0].tolist() == [0, 0, 5, 6, 8, 9, 7]
    assert made["input_ids"][1, 2:].tolist() == [1, 2, 3, 4, 5]
    assert made["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]]
    assert made["token_type_ids"].tolist() == [[0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]]
    counted = {**inputs, "position_ids": torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]])}
    for places in (counted["position_ids"], counted["position_ids"].expand(3, -1, -1)):
        moved = insert_tokens({**counted, "position_ids": places}, torch.tensor([4, -1]), [8, 9])["position_ids"]
        assert moved.reshape(-1, 2, 7)[0, 0, 2:].tolist() == [0, 1, 2, 3, 4]
        assert moved.reshape(-1, 2, 7)[0, 1, 2:].tolist() == [0, 1, 2, 3, 4]
    at_the_ends = insert_tokens(inputs, torch.tensor([5, 0]), [8, 9])["input_ids"]
    assert at_the_ends.tolist() == [[0, 0, 5, 6, 7, 8, 9], [8, 9, 1, 2, 3, 4, 5]]


def test_tokens_that_are_left_out_make_room_on_the_left():
    inputs = {
        "input_ids": torch.tensor([[0, 4, 5, 6, 7], [1, 2, 3, 4, 5]]),
        "attention_mask": torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]),
        "pixel_values": torch.zeros(2, 3),
        "use_cache": True,
    }
    out = torch.tensor([[0, 0, 1, 0, 0], [1, 0, 1, 1, 0]]).bool()
    made = without_tokens(inputs, out)
    assert made["pixel_values"] is None
    assert "use_cache" not in made
    assert made["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert made["input_ids"][0].tolist() == [4, 6, 7]
    assert made["input_ids"][1, 1:].tolist() == [2, 5]
    with pytest.raises(OmnisinkError, match="padded on the left"):
        without_tokens({**inputs, "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1] * 5])}, out)
    with pytest.raises(OmnisinkError, match="input_ids"):
        without_tokens({"inputs_embeds": torch.zeros(2, 5, 8)}, out)


def media_of(name, model, ids):
    """Tokens of pictures, video and sound, by the ids that the configuration names."""
    named = [v for part in (model.config, *vars(model.config).values()) for v in placeholders(part)]
    return torch.isin(ids, torch.tensor(named))


def placeholders(config):
    names = [f"{kind}_token_{end}" for kind in ("image", "video", "audio") for end in ("id", "index")]
    return [v for n in names if isinstance(v := getattr(config, n, None), int)]


def last(model, inputs, method=None):
    with torch.inference_mode():
        if method is None:
            return model(**inputs).logits[:, -1]
        with method(model):
            return model(**inputs).logits[:, -1]


@pytest.mark.parametrize("name", SEES)
def test_the_disturbance_stands_behind_the_media(name):
    model = reader(tiny(name, "sdpa"))
    inputs = FAMILIES[name].multimodal_inputs(model)
    media = media_of(name, model, inputs["input_ids"])
    end = int(media[0].nonzero().max()) + 1
    ids = inputs["input_ids"]
    longer = {"input_ids": torch.cat([ids[:, :end], torch.tensor([WORDS]), ids[:, end:]], dim=1)}
    longer["attention_mask"] = torch.ones_like(longer["input_ids"])
    for one in ("mm_token_type_ids", "token_type_ids"):
        if one in inputs:
            longer[one] = torch.cat([inputs[one][:, :end], torch.zeros(1, 3).long(), inputs[one][:, end:]], dim=1)
    z, y = last(model, inputs), last(model, {**inputs, **longer})
    assert not torch.allclose(z, y, atol=1e-4)
    found = last(model, inputs, ICD(alpha=1.5, beta=0.0, tokens=WORDS))
    assert torch.allclose(found, 2.5 * z - 1.5 * y, atol=2e-5)


@pytest.mark.parametrize("name", SEES)
def test_the_guidance_is_away_from_the_text_by_itself(name):
    model = reader(tiny(name, "sdpa"))
    inputs = FAMILIES[name].multimodal_inputs(model)
    ids = inputs["input_ids"]
    text = ids[:, ~media_of(name, model, ids)[0]]
    z, y = last(model, inputs), last(model, {"input_ids": text, "attention_mask": torch.ones_like(text)})
    assert not torch.allclose(z, y, atol=1e-4)
    found = last(model, inputs, PAIGuidance(alpha=1.5, beta=0.0))
    assert torch.allclose(found, 2.5 * z - 1.5 * y, atol=2e-5)
    # The same in log-likelihoods, as the paper writes it.
    ours, theirs = z.log_softmax(dim=-1), y.log_softmax(dim=-1)
    assert torch.allclose(found.log_softmax(dim=-1), (2.5 * (ours - theirs) + theirs).log_softmax(dim=-1), atol=1e-4)


@pytest.mark.parametrize("method", [ICD(3.0, 0.0, tokens=WORDS), PAIGuidance(3.0, 0.0)], ids=["icd", "pai"])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "qwen2_5_omni", "llava"])
def test_generated_tokens_are_those_without_a_cache(name, method):
    model = reader(tiny(name, "sdpa"))
    inputs = FAMILIES[name].multimodal_inputs(model)
    with method(model):
        kept = model.generate(**inputs, **SAYS)
        anew = model.generate(**inputs, **SAYS, use_cache=False)
    assert kept.tolist() == anew.tolist()


def test_a_prompt_without_media_is_contrasted_with_itself():
    model = reader(tiny("qwen2_5_vl", "sdpa"))
    inputs = FAMILIES["qwen2_5_vl"].inputs(model)
    bare = last(model, inputs)
    for method in (ICD(1.0, 0.0, tokens=WORDS), PAIGuidance(1.0, 0.0)):
        assert torch.allclose(last(model, inputs, method), bare, atol=1e-4)


def test_models_of_text_and_missing_tokenizers_are_refused():
    model = tiny_llama()
    with pytest.raises(OmnisinkError, match="without its tokenizer"), ICD()(model):
        pass
    for method in (ICD(tokens=WORDS), PAIGuidance()):
        with pytest.raises(UnsupportedModelError, match="image or video or audio"), method(model):
            model(prompt(9))
    with pytest.raises(ValueError, match="disturbance"):
        ICD(disturbance="")


@pytest.mark.parametrize("kind", [VCD, ICD, AVCD, MAD, SID, PAIGuidance])
def test_a_search_leaves_the_cut_as_it_is(kind):
    assert "alpha" in space_of(kind()).describe()
    assert "beta" not in space_of(kind()).describe()


def test_a_cut_with_nothing_else_is_not_searched():
    with pytest.raises(OmnisinkError, match="makes answers surer whether they are right or not"):
        space_of(PlausibleTokens())
