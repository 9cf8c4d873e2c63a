"""MAD: its combination, the weights that the model gives itself, and branches that lack sound and video."""

from __future__ import annotations

import pytest
import torch

from omnisink import OmnisinkError
from omnisink.methods.audio_visual import contrast_pairs
from omnisink.methods.mad import MAD
from omnisink.methods.registry import parse_method
from tests.methods.reference_avcd import in_maps, model_and_inputs, run, spans_of
from tests.methods.test_avcd import GREEDY, STATIC, batch_of, logits_with

WORDS = (61, 62, 63)
QUERY = (71, 72, 73)
GIVEN = {"tokens": QUERY, "words": WORDS}


class Letters:
    """Encodes the letters of a text as ids."""

    def encode(self, text, add_special_tokens=False):
        assert not add_special_tokens
        return [20 + ord(letter) % 40 for letter in text]


def test_the_combination_is_that_of_the_release():
    generator = torch.Generator().manual_seed(3)
    z, v, a, t = torch.randn(4, 2, 1, 9, generator=generator, dtype=torch.float64)
    p_a, p_v, p_b = torch.randn(3, 2, generator=generator, dtype=torch.float64).softmax(dim=0)[..., None, None]
    g = 0.7
    expected = (2 + 2 * g * p_b) * z + (1 - (p_b - p_v) * g) * v + (1 - (p_b - p_a) * g) * a - (p_v + p_a) * g * t
    assert torch.allclose(contrast_pairs(z, v, a, t, (g * p_b, g * p_v, g * p_a)), expected)
    # With one weight for all it is AVCD's.
    alpha = torch.full_like(p_a, 1.5)
    assert torch.allclose(contrast_pairs(z, v, a, t, (alpha, alpha, alpha)), 5 * z + v + a - 3 * t)


def restated(reference, inputs, alpha, turn_end=0, asks=True):
    """Logits for the next token, with maps in which all heads of all layers hide a modality, and the query put in."""
    ids = inputs["input_ids"]
    spans = spans_of(reference, ids)
    z = asked = run(reference, inputs)[0]
    if asks:
        end = ids.shape[1] - turn_end
        longer = torch.cat([ids[:, :end], torch.tensor([QUERY]), ids[:, end:]], dim=1)
        asked = run(reference, {**inputs, "input_ids": longer, "attention_mask": torch.ones_like(longer)})[0]
    v, a, t = (
        run(reference, inputs, gone=gone, mask="columns", spared=0)[0]
        for gone in (spans["audio"], spans["video"], spans["audio"] | spans["video"])
    )
    p_a, p_v, p_b = asked[0, list(WORDS)].softmax(dim=-1)
    w = alpha
    return (2 + 2 * w * p_b) * z + (1 - w * (p_b - p_v)) * v + (1 - w * (p_b - p_a)) * a - w * (p_v + p_a) * t


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize(("asks", "turn_end"), [(True, 0), (True, 4), (False, 0)])
def test_logits_are_those_of_prompts_without_sound_and_video(asks, turn_end, backend):
    model, inputs = model_and_inputs(backend)
    expected = restated(in_maps(model), inputs, 2.5, turn_end, asks)
    settings = {"words": WORDS, "turn_end": turn_end, **({"tokens": QUERY} if asks else {"query": ""})}
    found = logits_with(MAD(2.5, **settings), model, inputs)
    assert torch.allclose(found.double(), expected, atol=2e-4)


@pytest.mark.parametrize("method", [MAD(4.0, **GIVEN), MAD(4.0, query="", words=WORDS)], ids=["asked", "not asked"])
def test_a_padded_batch_with_beams_gives_each_prompt_what_it_gets_by_itself(method):
    model, inputs = model_and_inputs()
    together, alone = batch_of(inputs)
    options = {**GREEDY, "num_beams": 2}
    with method(model):
        made = model.generate(**together, **options)[:, together["input_ids"].shape[1] :]
        single = [model.generate(**one, **options)[0, one["input_ids"].shape[1] :] for one in alone]
    assert made.tolist() == [one.tolist() for one in single]


def test_answers_are_those_of_passes_over_everything():
    """Weights stay those of the prompt, so that the answer is what whole passes with its weights would say."""
    model, inputs = model_and_inputs()

    # Weights of one half for both and a quarter for each, whatever is said.
    class Fixed(MAD):
        def combine_pass(self, context, first, twins):
            super().combine_pass(context, first, twins)
            z, v, a, t = (one.float() for one in (first, *twins))
            return contrast_pairs(z, v, a, t, (2.0, 1.0, 1.0))

    with Fixed(4.0, query="", words=WORDS)(model):
        kept = model.generate(**inputs, **GREEDY)
        static = model.generate(**inputs, **GREEDY, **STATIC)
        anew = model.generate(**inputs, **GREEDY, use_cache=False)
    assert kept.tolist() == static.tolist() == anew.tolist()


def test_words_are_read_off_the_tokenizer():
    model, inputs = model_and_inputs()

    class Loaded:
        """What `load_model` returns has both."""

    loaded = Loaded()
    loaded.model, loaded.tokenizer = model, Letters()
    method = MAD(query="? ")
    ids = {"tokens": tuple(Letters().encode("? ")), "words": tuple(20 + ord(first) % 40 for first in "avb")}
    with torch.inference_mode(), method(loaded):
        found = model(**inputs).logits
    assert torch.equal(found[:, -1], logits_with(MAD(**ids), model, inputs))


def test_missing_and_equal_words_are_refused():
    model, _ = model_and_inputs()
    with pytest.raises(OmnisinkError, match="without its tokenizer"), MAD()(model):
        pass

    class Same(Letters):
        def encode(self, text, add_special_tokens=False):
            return [7]

    class Loaded:
        pass

    Loaded.model, Loaded.tokenizer = model, Same()
    with pytest.raises(OmnisinkError, match="begins two of them with the same"), MAD()(Loaded()):
        pass
    for given in ({"words": (1, 2)}, {"words": (1, 2, 2)}, {"turn_end": -1}):
        with pytest.raises(ValueError, match=next(iter(given))):
            MAD(**given)
    assert parse_method("mad:no-query:alpha=1") == MAD(1.0, query="")
