"""A replay that would not be right says so."""

from __future__ import annotations

import pytest
import torch

from omnisink import OmnisinkError
from omnisink.decoder.anatomy import read_anatomy
from omnisink.decoder.replay import replay
from omnisink.verification.families import FAMILIES
from tests.decoder.test_attachment import Failing
from tests.decoder.test_replay import run
from tests.reference_outro import prompt, tiny_llama


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


def test_a_run_that_failed_is_not_a_recording():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    with replay(read_anatomy(model)) as tape:
        with pytest.raises(RuntimeError, match="on purpose"), Failing()(model):
            run(model, inputs)
        with pytest.raises(OmnisinkError, match="nothing is recorded"):
            tape.residual(0)
        plain = run(model, inputs)
        with tape.from_layer(3):
            with pytest.raises(RuntimeError, match="on purpose"), Failing(layer=4)(model):
                run(model, inputs)
            assert torch.equal(run(model, inputs), plain)


def test_layers_that_do_not_exist_and_tapes_that_ended():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    with replay(read_anatomy(model)) as tape:
        with pytest.raises(OmnisinkError, match="nothing is recorded"), tape.from_layer(0):
            pass
        run(model, inputs)
        for layer in (-1, 6):
            with pytest.raises(OmnisinkError, match="layers 0 to 5"), tape.from_layer(layer):
                pass
        for layer in (-1, 7):
            with pytest.raises(OmnisinkError, match=r"went through layers \[0, 1, 2, 3, 4, 5\]"):
                tape.residual(layer)
    assert tape.residual(6).shape == (1, 9, 48)
    with pytest.raises(OmnisinkError, match="has ended"), tape.from_layer(0):
        pass


@pytest.mark.parametrize("what", ["tokens", "length", "mask", "positions", "batch", "embeddings"])
def test_another_prompt_is_refused(what):
    model, ids = tiny_llama(), prompt(9)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    other = dict(inputs)
    if what == "tokens":
        other["input_ids"] = ids.clone()
        other["input_ids"][0, -1] += 1
    elif what in ("length", "batch"):
        other = {k: v[:, :8] if what == "length" else v.repeat(2, 1) for k, v in inputs.items()}
    elif what == "mask":
        other["attention_mask"] = torch.tensor([[0, *[1] * 8]])
    elif what == "positions":
        other["position_ids"] = torch.arange(1, 10)[None]
    with replay(read_anatomy(model)) as tape:
        plain = run(model, inputs)
        with tape.from_layer(2):
            if what == "embeddings":  # The text model is given the same tokens; layer 0 is not.
                model.model.embed_tokens.register_forward_hook(lambda _, args, output: output * 2)
            with pytest.raises(OmnisinkError, match="another prompt|the prompt is another"):
                run(model, other)
        if what != "embeddings":
            with tape.from_layer(2):
                assert torch.equal(run(model, inputs), plain)


@pytest.mark.parametrize("start", [0, 2])
def test_other_images_are_refused(start):
    model = FAMILIES["llava_onevision"].build()
    inputs = FAMILIES["llava_onevision"].multimodal_inputs(model)
    other = {**inputs, "pixel_values": inputs["pixel_values"] + 1e-3}
    fewer = {k: v for k, v in inputs.items() if k != "pixel_values_videos"}
    with replay(read_anatomy(model)) as tape:
        plain = run(model, inputs)
        with tape.from_layer(start):
            with pytest.raises(OmnisinkError, match="SiglipVisionModel is given something else"):
                run(model, other)
            if start:
                with pytest.raises(OmnisinkError, match="this is another prompt"):
                    run(model, fewer)
            assert torch.equal(run(model, inputs), plain)
    with replay(read_anatomy(model)) as tape:
        run(model, fewer)
        with tape.from_layer(start), pytest.raises(OmnisinkError, match="called more often"):
            run(model, inputs)


def test_a_cache_is_filled_only_if_it_was_in_the_recorded_run():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    for recorded in (True, False):
        with replay(read_anatomy(model)) as tape:
            plain = run(model, inputs, use_cache=recorded)
            with tape.from_layer(2):
                assert torch.equal(run(model, inputs), plain)
                if recorded:
                    assert torch.equal(run(model, inputs, use_cache=True), plain)
                else:
                    with pytest.raises(OmnisinkError, match="use_cache=False"):
                        run(model, inputs, use_cache=True)


def test_attention_weights_are_refused_and_hidden_states_are_right():
    model, inputs = tiny_llama("eager"), {"input_ids": prompt(9), "use_cache": False}
    expected = model(**inputs, output_hidden_states=True).hidden_states
    with replay(read_anatomy(model)) as tape:
        model(**inputs)
        with tape.from_layer(2):
            found = model(**inputs, output_hidden_states=True).hidden_states
            with pytest.raises(OmnisinkError, match="output_attentions cannot be answered"):
                model(**inputs, output_attentions=True)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_change_before_the_first_layer_that_runs_is_refused():
    model, inputs = tiny_llama(), {"input_ids": prompt(9)}
    anatomy = read_anatomy(model)
    with replay(anatomy) as tape:
        run(model, inputs)
        anatomy.layers[1].register_forward_hook(lambda _, args, output: output + 1)
        with tape.from_layer(4), pytest.raises(OmnisinkError, match=r"enters layer 2 \(LlamaDecoderLayer\)"):
            run(model, inputs)


def test_a_layer_that_runs_twice_is_refused():
    model = tiny_llama()
    anatomy = read_anatomy(model)
    anatomy.layers[3].register_forward_hook(lambda _, args, output: anatomy.layers[2](output))
    with replay(anatomy), pytest.raises(OmnisinkError, match="layer 2 .* runs twice"):
        run(model, {"input_ids": prompt(9)})
