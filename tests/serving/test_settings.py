"""Settings of a server and of a request: what is taken, what is refused, and why. No engine is needed."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnisink import OmnisinkError
from omnisink.maths.rotation import rotate
from omnisink.methods.outro import OutRo
from omnisink.methods.registry import registered_methods
from omnisink.serving import frontend
from omnisink.serving.configuration import NOT_SERVED, refuse_others
from omnisink.serving.settings import REQUEST_FIELDS, RequestSettings, ServingSettings, read_request, read_settings


def test_the_defaults_are_those_of_the_method() -> None:
    theirs = {f.name: f.default for f in fields(OutRo)}
    assert theirs.pop("criterion") is None  # A server has the default only.
    assert {f.name: f.default for f in fields(ServingSettings)} == theirs


@pytest.mark.parametrize("depth", [2, 4, 6, 14, 30, 36])
def test_layers_are_chosen_as_the_method_does(depth: int) -> None:
    ours, theirs = ServingSettings(), OutRo()
    for layer in range(depth):
        assert ours.detects(layer, depth) == theirs.detects(layer, depth)
        assert ours.relaxes(layer, depth) == theirs.relaxes(layer, depth)


def test_settings_survive_json() -> None:
    settings = read_settings({"gamma": 1, "detect_layers": [3, 1], "relax": False})
    assert settings == ServingSettings(gamma=1.0, detect_layers=(1, 3), relax=False)
    assert read_settings(settings.to_dict()) == settings
    assert read_settings(True) == ServingSettings()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"gama": 1}, "no setting 'gama'; those it has: gamma, tau"),
        ({"gamma": "strong"}, "gamma must be a finite number, got 'strong'"),
        ({"gamma": float("inf")}, "gamma must be a finite number"),
        ({"gamma": True}, "gamma must be a finite number, got True"),
        ({"gamma": 1e308}, "gamma must be at most 10000 in absolute value"),
        ({"gamma": -1e38}, "gamma must be at most 10000"),
        ({"gamma": 10**400}, "gamma must be at most .* got a whole number of 1329 bits"),
        ({"gamma": "0.3"}, "gamma must be a finite number, got '0.3'"),
        ({"gamma": [0.3]}, "gamma must be a finite number"),
        ({"tau": 1e-320}, "tau must lie between 1e-06 and 1e\\+06"),
        ({"tau": 1e300}, "tau must lie between"),
        ({"min_activation": 1e39}, "min_activation must be at most 1e\\+30"),
        ({"max_relaxed": True}, "max_relaxed must be a whole number of at least 1, got True"),
        ({"max_relaxed": -(10**4000)}, "max_relaxed must be a whole number .* got a whole number of 13288 bits"),
        ({"detect_layers": [True]}, "detect_layers must be a list of layer numbers"),
        ({"tau": 0}, "tau must be a positive number, got 0"),
        ({"median_ratio": -1}, "median_ratio must be a positive number"),
        ({"relax": 1}, "relax must be true or false, got 1"),
        ({"detect_layers": "all"}, "detect_layers must be a list of layer numbers"),
        ({"relax_layers": [-1]}, "relax_layers must be a list of layer numbers"),
        ({"max_relaxed": 0}, "max_relaxed must be a whole number of at least 1"),
        ([1], "outro must be an object"),
        ("on", "outro must be an object"),
    ],
)
def test_wrong_settings_are_refused(given: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_settings(given)


def test_layers_the_model_lacks_are_refused() -> None:
    ServingSettings(detect_layers=(5,)).check_depth(6)
    with pytest.raises(ValueError, match=r"relax_layers names \[6\], but the model has layers 0 to 5"):
        ServingSettings(relax_layers=(2, 6)).check_depth(6)


SERVER = ServingSettings(gamma=0.5)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, RequestSettings(0.5, relax=True, decode=True)),
        (True, RequestSettings(0.5, relax=True, decode=True)),
        (False, RequestSettings(0.0, relax=False, decode=False)),
        ({}, RequestSettings(0.5, relax=True, decode=True)),
        ({"gamma": 2}, RequestSettings(2.0, relax=True, decode=True)),
        ({"gamma": 0.0}, RequestSettings(0.0, relax=False, decode=True)),
        ({"gamma": 0.0, "relax": True}, RequestSettings(0.0, relax=True, decode=True)),
        ({"relax": False, "decode": False}, RequestSettings(0.5, relax=False, decode=False)),
        ('{"gamma": -1}', RequestSettings(-1.0, relax=True, decode=True)),
        ("false", RequestSettings(0.0, relax=False, decode=False)),
    ],
)
def test_what_a_request_may_say(given: Any, wanted: RequestSettings) -> None:
    assert read_request(given, SERVER) == wanted
    assert read_request(given, SERVER).acts == (wanted.gamma != 0 or wanted.relax)


def test_a_server_without_rotation_rotates_where_a_request_asks() -> None:
    server = ServingSettings(rotate=False)
    assert read_request(None, server).gamma == 0
    assert read_request({"gamma": 0.2}, server).gamma == 0.2


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"tau": 0.2}, f"no setting 'tau'; those it has: {', '.join(REQUEST_FIELDS)}"),
        ({"gamma": None}, "gamma must be a finite number, got None"),
        ({"gamma": float("nan")}, "gamma must be a finite number"),
        ({"decode": "no"}, "decode must be true or false"),
        ("{gamma", "outro is not JSON"),
        ("[" * 100_000, "outro is not JSON"),
        ('{"gamma": 1' + "0" * 5000 + "}", "outro is not JSON"),
        ('{"gamma": 1' + "0" * 400 + "}", "gamma must be at most"),
        ('{"gamma": NaN}', "gamma must be a finite number, got nan"),
        ('{"gamma": 1e308}', "gamma must be at most"),
        ({"gamma": "0.3"}, "gamma must be a finite number, got '0.3'"),
        ({"gamma": 1e38}, "gamma must be at most"),
        ({"gamma": -1e308}, "gamma must be at most"),
        (3, "outro must be an object"),
        (["gamma"], "outro must be an object"),
    ],
)
def test_wrong_requests_are_refused(given: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_request(given, SERVER)


@pytest.mark.parametrize(
    "given", ["x" * 10**7, ["x" * 10**7] * 3, {"x" * 10**7: 1}, {"gamma": "x" * 10**7}, {"relax": "x" * 10**7}]
)
def test_a_refusal_does_not_repeat_what_it_was_given(given: Any) -> None:
    for read in (lambda: read_request(given, SERVER), lambda: read_settings(given)):
        with pytest.raises(ValueError, match="outro|gamma|relax") as refused:
            read()
        assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("gamma", [1e4, -1e4])
@pytest.mark.parametrize("tau", [1e-6, 1e6])
def test_numbers_at_the_ends_of_their_ranges_overflow_nothing(gamma: float, tau: float) -> None:
    # Head outputs longer than any model's, along, across and against the sink's value.
    long = torch.randn(64, 2, 8, generator=torch.Generator().manual_seed(0)) * 1e14
    direction = torch.nn.functional.normalize(torch.ones(2, 8), dim=-1)
    long[0], long[1] = direction * 1e14, -direction * 1e14
    turned = rotate(long[None].clone(), direction[None], gamma=gamma, tau=tau)[0]
    assert bool(turned.isfinite().all())
    torch.testing.assert_close(turned.norm(dim=-1), long.norm(dim=-1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", [one.name for one in registered_methods() if one.origin == "omnisink"])
def test_every_method_is_served_or_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OutRo runs in a server; all else would be ignored without a word, in its configuration and in a request."""
    monkeypatch.setattr(frontend, "_server", ServingSettings())
    monkeypatch.setattr(frontend, "_refusal", ValueError)
    params = SimpleNamespace(extra_args=None)
    for key in (name, f"{name}:alpha=0.5", f"outro+{name}"):
        asked = SimpleNamespace(model_extra={key: {}})
        if name == "outro":
            refuse_others({key: True})
            assert frontend._carry(lambda request: params, asked) is params
            continue
        for given in ({"alpha": 0.5}, True, {}):
            with pytest.raises(OmnisinkError, match=f"^{name} cannot be run in vLLM: it [^.]*[.] Run it on transform"):
                refuse_others({"outro": True, key: given})
        with pytest.raises(ValueError, match=f"^{name} cannot be run in vLLM"):
            frontend._carry(lambda request: params, asked)
    for extra in (None, {}, {"outro": True}, {name: False}, {name: None}):
        refuse_others(extra)


def test_what_is_refused_is_a_method() -> None:
    assert set(NOT_SERVED) < {one.name for one in registered_methods()}
