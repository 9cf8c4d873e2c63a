"""Margins of a search: of batches, of answers that were cut, of numbers that overflow, and of both signs of gamma."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from omnisink import OutRo
from omnisink.evaluation.running.asking import CUT_MARGIN, Reply, ask
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tuning import scoring
from omnisink.evaluation.tuning.scoring import Scorer, prepare
from omnisink.evaluation.tuning.tune import Tuning, assign_folds, tune
from omnisink.evaluation.tuning.tuned import make_profile, sentences, write_profile
from omnisink.methods.plausible import PlausibleTokens
from tests.evaluation.planted import Planted, best_at_half, best_away, planted_questions


@pytest.fixture(scope="module")
def questions() -> list[Instance]:
    """Make 36 questions, three about each of 12 clips."""
    return planted_questions()


def test_margins_of_a_batch_are_those_of_its_questions_alone(tiny, asked, tmp_path):
    letters = [i for i in asked if i.answers == ("A", "B")]
    folds = assign_folds(letters, 2, 0)
    batches, left = prepare(tiny, letters, folds, size=3)
    assert not left
    assert sorted(i.id for b in batches for i in b.instances) == sorted(i.id for i in letters)
    assert all({folds[i.cluster] for i in b.instances} == {b.fold} for b in batches)
    method = OutRo(gamma=0.5)
    with Scorer(tiny, tmp_path) as scorer:
        for batch in batches:
            margins, plain = scorer.margins(method, batch), scorer.margins(None, batch)
            assert abs(margins - plain).max() > 0.001  # The sink is there, and the method acts on it.
            for instance, margin in zip(batch.instances, margins, strict=True):
                inputs = tiny.adapter.encode(
                    tiny, [b for b in batch.inputs.prompts if b.text == instance.text][:1], None
                )
                (reply,) = ask(tiny, inputs, [instance], method, "likelihood")
                assert margin == pytest.approx(reply.margin(instance.gold), abs=1e-4)
        asked_before = scorer.asked
        assert asked_before == 2 * len(letters)
        scorer.margins(OutRo(gamma=0, relax=False), batches[0])  # Off by other words is asked no second time.
        assert scorer.asked == asked_before


def test_answers_that_a_method_cuts_have_a_margin_and_are_never_chosen(tiny, asked, tmp_path):
    letters = [i for i in asked if i.answers == ("A", "B")]
    (batch, *_), _ = prepare(tiny, letters, assign_folds(letters, 2, 0), size=3)
    with Scorer(tiny, tmp_path) as scorer:  # A random model's favourite is none of the answers.
        assert set(scorer.margins(PlausibleTokens(beta=1.0), batch)) == {-CUT_MARGIN}
    replies = ask(tiny, batch.inputs, batch.instances, PlausibleTokens(beta=1.0), "likelihood")
    assert [reply.parsed for reply in replies] == [None] * len(replies)


@pytest.mark.parametrize(("right", "wrong", "margin"), [(-math.inf, -1, -100), (-1, -math.inf, 100), (-1, -3, 2)])
def test_an_answer_of_probability_zero_is_a_hundred_nats_away(right, wrong, margin):
    assert Reply(None, None, 0, {"A": right, "B": wrong}, None).margin("A") == margin


def overflowing(limit, instance_id=None):
    """Answer with margins that are no numbers under a strength over `limit`, of one question or of all."""

    def margin(method, instance) -> float:
        if method is not None and method.rotate and method.gamma > limit and instance_id in (None, instance.id):
            return math.inf
        return best_at_half(method, instance)

    return margin


def test_settings_under_which_numbers_overflow_are_given_up_and_counted(tiny, questions, tmp_path, monkeypatch):
    planted = Planted(overflowing(1.0))
    monkeypatch.setattr(scoring, "ask", planted)
    found = tune(tiny, questions, Tuning(trials=20), tmp_path, first=OutRo())
    failed = [trial for trial in found["trials"] if trial["error"]]
    assert failed
    assert failed[0]["settings"]["gamma"] == 3.0
    assert all(trial["stopped"] and "not finite numbers" in trial["error"] for trial in failed)
    assert all(trial["settings"]["gamma"] > 1 for trial in failed)
    assert 0.5 / 1.5 < found["settings"]["gamma"] <= 1
    assert found["left_out"] == {}
    asked = len(planted.asked)
    again = tune(tiny, questions, Tuning(trials=20), tmp_path, first=OutRo())
    assert again == found
    # What failed is not on record, and is asked again: once for every search that tries it.
    assert len(planted.asked) - asked <= 4 * 4 * len(failed)


def test_a_choice_that_overflows_on_unseen_questions_leaves_those_out(tiny, questions, tmp_path, monkeypatch):
    folds = assign_folds(questions, 3, 0)
    unseen = next(i.id for i in questions if folds[i.cluster] == 0)
    monkeypatch.setattr(scoring, "ask", Planted(overflowing(0.05, unseen)))
    found = tune(tiny, questions, Tuning(trials=10, batch_size=1), tmp_path)
    assert list(found["left_out"]) == [unseen]
    assert found["left_out"][unseen].startswith("in the test of fold 1: ")
    assert found["folds"][0]["tested_on"] == sum(folds[i.cluster] == 0 for i in questions) - 1
    assert found["gain"]["lead"]["questions"] == len(questions) - 1


def test_it_finds_a_setting_that_rotates_away_and_says_so(tiny, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ask", Planted(best_away))
    found = tune(tiny, questions, Tuning(trials=40, folds=0), tmp_path / "run", first=OutRo())
    assert -0.5 * 1.5 < found["settings"]["gamma"] < -0.5 / 1.5
    assert found["direction"] == "away"
    assert found["search"]["directions"] == ["toward", "away"]
    (said,) = (one for one in sentences(found) if "away" in one)
    assert re.fullmatch(
        r"The chosen setting rotates away from the sink's value. Best probability margin where it was searched: "
        r"toward all \d+ settings given up early, away \+0\.\d+\.",
        said,
    )
    written = make_profile(tiny, found, {})
    assert written["search"]["direction"] == "away"
    write_profile(tmp_path / "profile.json", written)
    method = OutRo.from_profile(tmp_path / "profile.json", tiny)
    assert method.profile.direction == "away"
    assert method.gamma == found["settings"]["gamma"]


def test_strengths_are_drawn_evenly_on_a_log_scale_of_both_signs():
    space, places = OutRo.search_space, np.linspace(-1, 1, 201)
    start = OutRo(gamma=-0.5)

    class At:
        """A trial that draws one place on the axis of strengths."""

        def __init__(self, place):
            self.place = place

        def suggest_categorical(self, name, values):
            return values[0]

        def suggest_int(self, name, low, high):
            return low

        def suggest_float(self, name, low, high, log=False):
            return self.place if name == "strength" else low

    gammas = np.array([space.suggest(At(place), 4, start).gamma for place in places])
    assert (np.diff(gammas[:100]) > 0).all()
    assert (gammas[:100] < 0).all()
    assert (gammas[100:] > 0).all()
    assert (gammas[0], gammas[-1]) == (-10, 10)
    ratios = gammas[101:] / gammas[100:-1]
    assert ratios == pytest.approx(1000**0.01, rel=0.01)
    assert -gammas[:100][::-1] == pytest.approx(gammas[101:])
    for gamma, expected in ((-0.5, -0.5), (3.0, 3.0), (50.0, 10.0), (-0.001, -0.01), (0.0, 0.01)):
        place = space.initial(4, OutRo(gamma=gamma))["strength"]
        assert space.suggest(At(place), 4, start).gamma == pytest.approx(expected)
