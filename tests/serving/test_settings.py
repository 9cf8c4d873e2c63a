"""Settings of a server and of a request: what is taken, what is refused, and why. No engine is needed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from omnisink.methods.outro import OutRo
from omnisink.serving.settings import REQUEST_FIELDS, RequestSettings, ServingSettings, read_request, read_settings


def test_the_defaults_are_those_of_the_method() -> None:
    assert {f.name: f.default for f in fields(ServingSettings)} == {f.name: f.default for f in fields(OutRo)}


@pytest.mark.parametrize("depth", [2, 4, 6, 14, 30, 36])
def test_layers_are_chosen_as_the_method_does(depth: int) -> None:
    ours, theirs = ServingSettings(), OutRo()
    for layer in range(depth):
        assert ours.detects(layer, depth) == theirs._detects(layer, depth)
        assert ours.relaxes(layer, depth) == theirs._relaxes(layer, depth)


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
        (3, "outro must be an object"),
        (["gamma"], "outro must be an object"),
    ],
)
def test_wrong_requests_are_refused(given: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_request(given, SERVER)
