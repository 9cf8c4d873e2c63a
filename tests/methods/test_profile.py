"""Profiles: what comes back is what was stored, another model is warned about, and nonsense is refused."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from dataclasses import asdict, replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from omnisink import OutRo
from omnisink.errors import OmnisinkError
from omnisink.methods.ablation import ZeroSinkKey
from omnisink.methods.controls import OutRoControl
from omnisink.methods.criteria import RandomTokens, SinkDimension
from omnisink.methods.outro_space import direction_of
from omnisink.methods.profile import FORMAT, ProfileWarning, fingerprint, read_profile
from omnisink.methods.settings import plain_settings
from omnisink.methods.shipped import default_outro, shipped_profile

TUNED = OutRo(gamma=0.25, tau=0.3, detect_layers=(0, 1), relax_layers=(1,))


def make_model(seed: int = 0, **changes) -> LlamaForCausalLM:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=64, num_key_value_heads=2, **{**sizes, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return make_model()


@pytest.fixture
def content(model) -> dict:
    return {
        "format": FORMAT,
        "method": "OutRo",
        "settings": asdict(TUNED),
        "model": {"name": "tiny", "fingerprint": fingerprint(model)},
    }


@pytest.fixture
def path(content, tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(content))
    return path


def used(method, model):
    with method(model):
        pass


def test_what_is_loaded_is_what_was_stored(path, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = OutRo.from_profile(path, model)
        used(method, model)
    assert method == TUNED
    assert method.profile is not None
    assert method.profile.path == path
    assert TUNED.profile is replace(method).profile is None
    assert type(method) is OutRo
    assert repr(method) == repr(TUNED)
    assert asdict(method) == asdict(TUNED)
    assert hash(method) == hash(TUNED)
    assert pickle.loads(pickle.dumps(method)) == copy.deepcopy(method) == TUNED
    assert isinstance(OutRoControl.from_profile(path), OutRoControl)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (make_model(hidden_size=48), "hidden_size is 48, was 32"),
        (make_model(num_hidden_layers=5), "num_hidden_layers is 5, was 4"),
        (make_model(seed=1), "it has other weights"),
    ],
    ids=["size", "depth", "weights"],
)
def test_another_model_is_warned_about_when_it_is_named_and_when_it_is_used(path, other, said):
    with pytest.warns(ProfileWarning, match=f"was tuned for tiny.*{said}") as caught:
        method = OutRo.from_profile(path, other)
    assert caught[0].filename == __file__
    with pytest.warns(ProfileWarning, match=said) as caught:
        used(method, other)
    assert caught[0].filename == __file__  # The warning is about the user's line.
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OutRo.from_profile(path)  # Without a model there is nothing to compare.
        used(replace(method, gamma=0.1), other)  # Settings of one's own are no profile.


def test_the_same_weights_in_another_type_or_under_another_name_are_the_same_model(path, model):
    profile = read_profile(path)
    assert profile.differences(copy.deepcopy(model).to(torch.bfloat16)) == []
    assert profile.differences(copy.deepcopy(model).to(torch.float16)) == []  # Not compared.
    assert fingerprint(copy.deepcopy(model).half())["weights"] is None
    assert len(fingerprint(model)["weights"]) == 16


def test_a_layer_that_the_model_lacks_is_refused(content, tmp_path, model):
    content["settings"]["detect_layers"] = [9]
    path = tmp_path / "deep.json"
    path.write_text(json.dumps(content))
    with pytest.raises(OmnisinkError, match="detect_layers names"):
        used(OutRo.from_profile(path), model)


def test_profiles_of_other_methods_come_back_with_their_criteria(tmp_path, model):
    first = ZeroSinkKey(criterion=RandomTokens(SinkDimension((5, 7), 30.0), 2), layers=(1, 3), channels=4)
    content = {
        "format": FORMAT,
        "method": "zero-sink-key",
        "settings": json.loads(json.dumps(plain_settings(first))),
        "model": {"name": "tiny", "fingerprint": fingerprint(model)},
    }
    path = tmp_path / "zero.json"
    path.write_text(json.dumps(content))
    assert ZeroSinkKey.from_profile(path, model) == first
    with pytest.raises(OmnisinkError, match="it is a profile of 'zero-sink-key', not of OutRo"):
        OutRo.from_profile(path)
    for wrong, said in (
        ({"name": "loudest"}, "criterion must be a criterion that omnisink has, got 'loudest'"),
        ({"name": "positions", "place": 1}, "must be a criterion's settings: .*place"),
        ([0], "criterion must be null or a criterion's name and settings"),
    ):
        content["settings"]["criterion"] = wrong
        path.write_text(json.dumps(content))
        with pytest.raises(OmnisinkError, match=said):
            ZeroSinkKey.from_profile(path)


@pytest.mark.parametrize(("name", "gamma"), [("smolomni", 0.1), ("SmolLM2-135M", 0.3)])
def test_the_profiles_of_the_embedded_models_are_found_by_name(name, gamma):
    assert OutRo.from_profile(shipped_profile(name)) == OutRo(gamma=gamma) == default_outro(name)
    assert shipped_profile("another") is None
    assert default_outro("another") == OutRo()


@pytest.mark.real
def test_the_profile_of_an_embedded_model_is_found_by_its_weights(smolomni, model):
    found = shipped_profile(smolomni.model)
    assert found == shipped_profile("smolomni")
    assert read_profile(found).differences(smolomni.model) == []
    assert shipped_profile(other_weights := make_model()) is None
    assert shipped_profile(other_weights.half()) is None


def broken(**changes):
    def change(content):
        for key, value in changes.items():
            place, _, name = key.rpartition("__")
            target = content[place] if place else content
            if value is ...:
                del target[name]
            else:
                target[name] = value
        return content

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (broken(format="omnisink.eval.v1"), "its format is 'omnisink.eval.v1'"),
        (broken(format=...), "its format is None"),
        (broken(model=...), "must not lack model"),
        (broken(surprise=1), "must not have surprise"),
        (broken(method="Other"), "it is a profile of 'Other', not of OutRo"),
        (broken(method=7), "method must be a text, got 7"),
        (broken(method="zero-heads"), "it is a profile of 'zero-heads', not of OutRo"),
        (broken(settings=[1]), "settings must be an object"),
        (broken(gain=3), "gain must be an object"),
        (broken(settings__tau=...), "settings must not lack tau"),
        (broken(settings__colour="red"), "settings must not have colour"),
        (broken(settings__gamma="3"), "gamma must be a number, got '3'"),
        (broken(settings__gamma=True), "gamma must be a number"),
        (broken(settings__rotate=1), "rotate must be true or false"),
        (broken(settings__detect_layers=[0.5]), "detect_layers must be null or a list of whole numbers"),
        (broken(settings__relax_layers=[-1]), "out of range: relax_layers must be a list of layer numbers"),
        (broken(settings__max_relaxed=1.5), "max_relaxed must be a whole number"),
        (broken(settings__tau=0), "out of range: tau"),
        (broken(settings__gamma=10**400), "out of range: gamma must be at most .* a whole number of 1329 bits"),
        (broken(settings__tau=10**400), "out of range: tau must lie between"),
        (broken(settings__tau=1e-320), "out of range: tau must lie between"),
        (broken(settings__gamma=1e308), "out of range: gamma must be at most"),
        (broken(settings__min_activation=1e300), "out of range: min_activation must be at most"),
        (broken(settings__gamma="x" * 10**5), "gamma must be a number"),
        (broken(model__name=...), "does not say which model"),
        (broken(model__fingerprint="x"), "does not say which model"),
    ],
)
def test_a_malformed_profile_is_refused(content, tmp_path, change, said):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(change(content)))
    with pytest.raises(OmnisinkError, match=said) as caught:
        OutRo.from_profile(path)
    assert "bad.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "it is not JSON"),
        (b"\xff\xfe{}", "it is not JSON"),
        (b'{"gamma": NaN}', "NaN is not a number"),
        (b"[" * 100_000, "is not a profile"),
        (b"[]", "not a JSON object but list"),
        (b" " * (2**20 + 1), "larger than"),
    ],
    ids=["cut", "not UTF-8", "NaN", "nested", "list", "large"],
)
def test_what_is_no_profile_at_all_is_refused(tmp_path, text, said):
    path = tmp_path / "bad.json"
    path.write_bytes(text)
    with pytest.raises(OmnisinkError, match=said):
        OutRo.from_profile(path)
    with pytest.raises(OmnisinkError, match="cannot be read"):
        OutRo.from_profile(tmp_path)
    with pytest.raises(OmnisinkError, match="cannot be read"):
        OutRo.from_profile(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gamma": 0.3, "rotate": True}, "toward"),
        ({"gamma": -0.3, "rotate": True}, "away"),
        ({"gamma": 0.0, "rotate": True}, None),
        ({"gamma": -0.3, "rotate": False}, None),
        ({"gamma": 0.3, "rotate": True, "direction": "random"}, None),
        ({"threshold": 0.3}, None),
    ],
)
def test_the_direction_of_settings(settings, expected):
    assert direction_of(settings) == expected


def test_shipped_profiles_say_their_direction():
    assert read_profile(shipped_profile("smollm2-135m")).direction == "toward"
