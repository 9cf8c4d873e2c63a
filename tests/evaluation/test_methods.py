"""Names of methods, and what they stand for."""

from __future__ import annotations

import pytest

from omnisink import OutRo
from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.methods import parse_methods, settings_of
from omnisink.methods.aimed import AimedOutRo


def test_names_stand_for_the_settings_they_say():
    found = parse_methods(
        " baseline, outro,outro:rotate,outro:relax,outro:away,outro:random:seed=3,outro:relax:tau=0.2,outro:gamma=2 ",
        OutRo(gamma=0.5, tau=0.3),
    )
    assert found == {
        "baseline": None,
        "outro": OutRo(gamma=0.5, tau=0.3),
        "outro:rotate": OutRo(gamma=0.5, tau=0.3, relax=False),
        "outro:relax": OutRo(gamma=0.5, tau=0.3, rotate=False),
        "outro:away": OutRo(gamma=-0.5, tau=0.3),
        "outro:random:seed=3": AimedOutRo(gamma=0.5, tau=0.3, aim="random", seed=3),
        "outro:relax:tau=0.2": OutRo(gamma=0.5, tau=0.2, rotate=False),
        "outro:gamma=2": OutRo(gamma=2.0, tau=0.3),
    }
    assert next(iter(found)) == "baseline"


def test_away_turns_the_strength_that_was_asked_for_whatever_the_order():
    assert parse_methods("outro:away:gamma=2,outro:gamma=2:away") == {
        "outro:away:gamma=2": OutRo(gamma=-2.0),
        "outro:gamma=2:away": OutRo(gamma=-2.0),
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "name at least one method"),
        (" , ", "name at least one method"),
        ("baseline,baseline", "baseline is named twice"),
        ("vcd", "there is no method 'vcd'"),
        ("outro:halves", "'halves' is none of rotate"),
        ("outro:gamma", "'gamma' is none of"),
        ("outro:gamma=strong", "outro:gamma=strong: could not convert"),
        ("outro:gamma=nan", "gamma must be a finite number"),
        ("outro:tau=0", "tau must be a positive number"),
        ("outro:seed=1", "only outro:random has a seed"),
        ("outro:away:random", "gamma must not be negative"),
    ],
)
def test_what_stands_for_nothing_is_one_clear_error(names, message):
    with pytest.raises(OmnisinkError, match=message):
        parse_methods(names)


def test_the_seed_of_a_run_is_that_of_what_has_none_of_its_own():
    found = parse_methods("outro,outro:random,outro:random:seed=3", seed=7)
    assert found == {
        "outro": OutRo(),
        "outro:random": AimedOutRo(aim="random", seed=7),
        "outro:random:seed=3": AimedOutRo(aim="random", seed=3),
    }


def test_settings_are_plain_data():
    assert settings_of(None) is None
    said = settings_of(parse_methods("outro:random")["outro:random"])
    assert said["name"] == "AimedOutRo"
    assert said["aim"] == "random"
