"""AVCD against a restatement with attention maps, on omni models whose prompts have video and sound."""

from __future__ import annotations

import pytest
import torch

from omnisink import UnsupportedModelError
from omnisink.methods.avcd import AVCD
from omnisink.methods.registry import parse_method
from omnisink.verification.families import FAMILIES
from tests.verification.family_cells import reader, tiny

NAME = "qwen2_5_omni_thinker"


def model_and_inputs(backend="eager"):
    model = reader(tiny(NAME, backend))
    return model, FAMILIES[NAME].multimodal_inputs(model)


def spans_of(model, ids):
    config = model.config
    video = (ids == config.video_token_id) | (ids == config.image_token_id)
    audio = ids == config.audio_token_id
    language = ~(video | audio) & ((video | audio).cumsum(dim=1) > 0)
    return {"language": language, "video": video, "audio": audio}


def maps_of(model, inputs):
    with torch.inference_mode():
        return [one.double() for one in model(**inputs, output_attentions=True).attentions]


@pytest.mark.parametrize("dominant", ["language", "video", "audio", "most attended"])
def test_masks_follow_the_last_tokens_attention(dominant):
    model, inputs = model_and_inputs()
    ids = inputs["input_ids"]
    spans, maps = spans_of(model, ids), maps_of(model, inputs)
    mean = torch.stack([one[0, :, -1] for one in maps[:-1]]).mean(dim=0)  # (H, S)
    threshold = mean.quantile(0.5, dim=-1).mean()
    names = ["language", "video", "audio"]
    if dominant == "most attended":
        shares = {n: float(mean[:, spans[n][0]].sum() / spans[n].sum()) for n in names}
        first = max(shares, key=shares.get)
    else:
        first = dominant
    second, third = (n for n in names if n != first)
    wanted = [spans[second], spans[third], spans[second] | spans[third]]

    method = AVCD(alpha=1.5, beta=0.0, entropy=0.0, dominant=dominant)
    with torch.inference_mode():
        z = model(**inputs).logits[:, -1]
        others = [branch(model, inputs, one, threshold) for one in wanted]
        with method(model):
            seen = model(**inputs).logits[:, -1]
    expected = 5 * z + others[0] + others[1] - 3 * others[2]
    assert not torch.allclose(others[0], z, atol=1e-5)
    assert torch.allclose(seen, expected, atol=1e-4)


def branch(model, inputs, masked, threshold):
    """Logits of one branch: the map of a layer is read with the layers before it already masked, one layer a run."""
    layers = [m for m in model.modules() if type(m).__name__.endswith("DecoderLayer") and hasattr(m, "self_attn")]
    gone: dict[int, torch.Tensor] = {}

    def run():
        hooks = []
        for layer, rows in gone.items():

            def zero_rows(module, args, rows=rows):
                mixed = args[0].unflatten(-1, (rows.shape[1], -1))
                return (mixed.masked_fill(rows.transpose(1, 2)[..., None], 0.0).flatten(-2),)

            hooks.append(layers[layer].self_attn.o_proj.register_forward_pre_hook(zero_rows))
        try:
            return model(**inputs, output_attentions=True)
        finally:
            for hook in hooks:
                hook.remove()

    for layer in range(len(layers) - 1):
        gone[layer] = masked[:, None] & (run().attentions[layer][:, :, -1] > threshold)
    return run().logits[:, -1]


def test_where_the_model_is_sure_its_own_logits_are_used():
    model, inputs = model_and_inputs("sdpa")
    with torch.inference_mode():
        bare = model(**inputs).logits
        with AVCD(entropy=1e9)(model):
            assert torch.equal(model(**inputs).logits, bare)
        with AVCD(entropy=0.0)(model):
            assert not torch.equal(model(**inputs).logits, bare)


def test_generated_tokens_do_not_depend_on_beams_of_one_and_the_cache():
    model, inputs = model_and_inputs("sdpa")
    options = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": list(range(1, 20))}
    with AVCD(alpha=2.5, entropy=0.0)(model):
        dynamic = model.generate(**inputs, **options)
        static = model.generate(**inputs, **options, cache_implementation="static", disable_compile=True)
        beams = model.generate(**inputs, **options, num_beams=2, num_return_sequences=2)
    assert dynamic.tolist() == static.tolist()
    assert beams.shape == (2, dynamic.shape[1])


def test_a_model_without_sound_is_refused():
    model = reader(tiny("qwen2_5_vl", "sdpa"))
    with pytest.raises(UnsupportedModelError, match="heard"), AVCD()(model):
        model(**FAMILIES["qwen2_5_vl"].multimodal_inputs(model))


def test_settings_are_checked_and_named():
    for given in ({"entropy": -1.0}, {"quantile": 2.0}, {"dominant": "smell"}):
        with pytest.raises(ValueError, match=next(iter(given))):
            AVCD(**given)
    assert parse_method("avcd:avhbench:release") == AVCD(alpha=2.5, beta=0.2)
