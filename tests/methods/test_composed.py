"""Several methods at once by name: what is cut where, in which order they act, and what cannot stand together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import omnisink.cli
from omnisink import OmnisinkError, OutRo
from omnisink.methods import ACT, AVCD, ICD, VCD, Composed, ForkMerge, PlausibleTokens, SinkRouter, ZeroHeads
from omnisink.methods.controls_of_contrast import with_controls
from omnisink.methods.registry import kinds_named, parse_method, parse_methods, settings_of
from omnisink.methods.space import space_of
from omnisink.verification.families import FAMILIES
from tests.cli.command import run
from tests.reference_outro import prompt, tiny_llama
from tests.verification.family_cells import reader, tiny


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("outro+avcd", (OutRo(), AVCD())),
        ("avcd+outro", (AVCD(), OutRo())),
        ("fork-merge+sink-router+avcd", (ForkMerge(), SinkRouter(), AVCD())),
        ("outro:gamma=3+vcd:alpha=0.5", (OutRo(gamma=3.0), VCD(alpha=0.5))),
        ("outro:detect_layers=0+2+5+avcd", (OutRo(detect_layers=(0, 2, 5)), AVCD())),
        ("vcd:modalities=vision+audio:beta=0+outro", (VCD(beta=0.0, modalities=("vision", "audio")), OutRo())),
        ("outro:gamma=1e+1+sink-router+act:beta=0.5", (OutRo(gamma=10.0), SinkRouter(), ACT(beta=0.5))),
        ("zero-heads:heads=[(3,1),(4,0)]+outro", (ZeroHeads(((3, 1), (4, 0))), OutRo())),
    ],
)  # fmt: skip
def test_a_plus_sign_stands_between_methods_and_in_settings(name, methods):
    assert parse_method(name) == Composed(methods)
    assert kinds_named(f"baseline,{name}") == [type(one) for one in methods]
    assert list(parse_methods(name.replace("+", " + ", 1))) == [name]
    plain = settings_of(Composed(methods))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["methods"] == [settings_of(one) for one in methods]


@pytest.mark.parametrize("name", ["outro:gamma=1e+1", "vcd:modalities=vision+audio", "outro:detect_layers=0+2"])
def test_one_method_stays_one(name):
    assert not isinstance(parse_method(name), Composed)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outro+avdc", "there is no method 'avdc'"),
        ("outro:gamma=3+vdc:alpha=1", "there is no method 'vdc'"),
        ("outro:detect_layers=0+2+avdc", "'avdc' is not a whole number"),
        ("outro+", r"outro\+: a method is missing beside \+"),
        ("+outro", "a method is missing"),
        ("outro+baseline", "baseline is the model without a method, and is composed with none"),
        ("outro+outro:rotate", r"OutRo\+OutRo names OutRo twice"),
        ("vcd+icd", r"VCD\+ICD cannot be composed: VCD and ICD all choose the next token"),
        ("avcd+outro+plausible-tokens", "AVCD and PlausibleTokens all choose"),
        ("sink-router+outro+streaming-llm", "SinkRouter and StreamingLLM all answer the attention of a layer"),
        ("sink-router+sid", "SinkRouter and SID all answer the attention of a layer"),
        ("fork-merge+mad", "ForkMerge and MAD all answer the attention of a layer"),
        ("all", "it is taken in the list of a run"),
        ("outro+all", "it is taken in the list of a run"),
    ],
)
def test_what_cannot_be_composed_is_one_clear_error(name, message):
    with pytest.raises(OmnisinkError, match=message):
        parse_methods(name)


def test_each_starts_from_its_own_settings():
    made = parse_method("outro+sink-router", [OutRo(gamma=0.4), SinkRouter(0.7)])
    assert made == Composed((OutRo(gamma=0.4), SinkRouter(0.7)))


@pytest.mark.parametrize("name", ["outro:gamma=2+avcd:entropy=0", "avcd:entropy=0+outro:gamma=2"])
def test_it_is_the_same_as_one_block_in_another(name):
    model = reader(tiny("qwen2_5_omni_thinker", "sdpa"))
    inputs = FAMILIES["qwen2_5_omni_thinker"].multimodal_inputs(model)
    first, second = (parse_method(one) for one in name.split("+"))
    with torch.inference_mode():
        bare = model(**inputs).logits
        with first(model), second(model):
            nested = model(**inputs).logits
        with parse_method(name)(model) as trace:
            together = model(**inputs).logits
        after = model(**inputs).logits
    assert torch.equal(together, nested)
    assert not torch.equal(together, bare)
    assert torch.equal(after, bare)
    assert [type(one).__name__ for one in trace.traces] == [type(one).trace_type.__name__ for one in (first, second)]
    assert not trace.is_empty


def test_its_trace_shows_the_sinks_of_the_method_that_looks_for_them():
    model, ids = tiny_llama(), prompt(13, (0, 4))
    with torch.inference_mode(), Composed([ZeroHeads(((2, 0),)), OutRo(gamma=1.0)])(model) as trace:
        model(ids)
    assert trace.sinks.positions(0) == [0, 4]
    assert trace.changes()["rotated_tokens"] == trace.traces[1].changes()["rotated_tokens"] != {}


def test_two_methods_with_branches_are_refused_in_python_too_and_leave_the_model_as_it_was():
    model = reader(tiny("qwen2_5_omni_thinker", "sdpa"))
    inputs = FAMILIES["qwen2_5_omni_thinker"].multimodal_inputs(model)
    with torch.inference_mode():
        bare = model(**inputs).logits
        with (
            pytest.raises(OmnisinkError, match="both run further passes of this model"),
            VCD()(model),
            ICD(tokens=(5,))(model),
        ):
            model(**inputs)
        assert torch.equal(model(**inputs).logits, bare)
        with VCD()(model):
            assert not torch.equal(model(**inputs).logits, bare)


def test_settings_are_searched_for_one_method_at_a_time():
    with pytest.raises(OmnisinkError, match="OutRo.VCD is several methods, and settings are searched for one"):
        space_of(Composed([OutRo(), VCD()]))


def test_controls_come_once_for_every_cut():
    named = parse_methods("vcd,outro+avcd,icd:beta=0.2,pai-guidance:beta=0,outro")
    made = with_controls(named)
    assert list(made) == ["baseline", *named, "plausible-tokens", "plausible-tokens:beta=0.2"]
    assert made["plausible-tokens:beta=0.2"] == PlausibleTokens(beta=0.2) == parse_method("plausible-tokens:beta=0.2")
    assert with_controls(made) == made
    assert with_controls({"cut": PlausibleTokens(), "vcd": VCD()}).keys() == {"baseline", "cut", "vcd"}
    assert with_controls({"outro": OutRo()}) == {"outro": OutRo()}


@pytest.mark.real
def test_one_command_answers_about_the_demo_clip(smolomni, monkeypatch):
    monkeypatch.setattr("omnisink.cli.options.load", lambda *given, **settings: smolomni)
    clip = Path(omnisink.cli.__file__).parent / "demo.mp4"
    question = ("Which sound is heard?", "--choices", "clock", "--choices", "bell")
    found = run("ask", "--method", "outro+avcd", str(clip), *question, "--json")
    assert found.returncode == 0, found.stderr
    said = json.loads(found.stdout)
    assert said["choice"] in ("A", "B")
    assert [one["name"] for one in said["method"]["methods"]] == ["OutRo", "AVCD"]
    assert said["rotated_tokens"]
    shown = run("ask", "--method", "outro+vcd:modalities=vision+audio", str(clip), *question)
    assert "tokens rotated at" in shown.stderr
    assert "VCD(alpha=1, beta=0.1, noise_step=500, modalities=[vision,audio], seed=0) ran" in shown.stderr
