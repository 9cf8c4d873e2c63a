"""Tuning: it finds what was planted, tests it honestly, gives up what is hopeless, and repeats nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import sys

import numpy as np
import pytest
import torch

from omnisink import OutRo
from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.asking import CUT_MARGIN, Reply, ask
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tuning import scoring
from omnisink.evaluation.tuning.scoring import OFF, Scorer, name_of, prepare
from omnisink.evaluation.tuning.search import choose, is_dominated, probability_margin
from omnisink.evaluation.tuning.tune import Tuning, assign_folds, tune
from omnisink.evaluation.tuning.tuned import make_profile, sentences, write_profile
from omnisink.extras import install
from omnisink.media import Uniform
from omnisink.methods.plausible import PlausibleTokens
from omnisink.results.records import read_records


@pytest.fixture(scope="module")
def questions() -> list[Instance]:
    """Make 36 questions, three about each of 12 clips."""
    return [
        Instance(
            id=f"q{i}",
            text="x" * (1 + i % 5) + "\nA. red\nB. blue",
            gold="AB"[i % 2],
            answers=("A", "B"),
            parser="letter",
            cluster=f"clip-{i // 3}",
        )
        for i in range(36)
    ]


def noise(*of) -> float:
    """Return a number from -1 to 1 that is always the same of the same."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:4], "big") / 2**31 - 1


class Planted:
    """Answers with the margins of a function of settings and question, and keeps who was asked."""

    def __init__(self, margin, stop_after: int | None = None) -> None:
        self.margin, self.stop_after = margin, stop_after
        self.asked: list[tuple[str, str]] = []

    def __call__(self, loaded, inputs, instances, method, score):
        assert score == "likelihood"
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [(name_of(method), i.id) for i in instances]
        replies = []
        for i in instances:
            right, wrong = (i.gold, "A" if i.gold == "B" else "B")
            replies.append(Reply(None, None, 0, {right: self.margin(method, i), wrong: 0.0}, None))
        return replies


def best_at_half(method, instance) -> float:
    """Gain most at gamma 0.5, and lose far from it."""
    plain = 0.5 * noise(instance.id)
    if method is None:
        return plain
    if not method.rotate:
        return plain - 0.2
    if method.gamma < 0:
        return plain - 0.2
    return plain + 1.0 - abs(math.log(method.gamma / 0.5)) + 0.05 * noise(instance.id, method)


def best_away(method, instance) -> float:
    """Gain most at gamma -0.5, as `best_at_half` does at 0.5."""
    if method is not None:
        method = dataclasses.replace(method, gamma=-method.gamma)
    return best_at_half(method, instance)


def nothing_helps(method, instance) -> float:
    return noise(instance.id) + (0 if method is None else 0.5 * noise(instance.id, method))


def test_it_finds_the_setting_that_was_planted_and_the_gain_is_seen_on_unseen_questions(
    tiny, questions, tmp_path, monkeypatch
):
    planted = Planted(best_at_half)
    monkeypatch.setattr(scoring, "ask", planted)
    told = []
    found = tune(tiny, questions, Tuning(trials=30), tmp_path, first=OutRo(), progress=lambda *what: told.append(what))
    assert found["settings"]["rotate"]
    assert 0.5 / 1.5 < found["settings"]["gamma"] < 0.5 * 1.5
    assert found["trials"][0]["settings"]["gamma"] == 3.0  # The search begins with what is there.
    assert found["gain"]["verdict"] == "higher"
    assert found["gain"]["lead"]["low"] > 0
    assert found["gain"]["lead"]["questions"] == len(questions)
    assert found["gain"]["accuracy"]["difference"] > 0.2
    assert "A gain on questions that the search did not see" in sentences(found)[0]
    assert [f["searched_on"] + f["tested_on"] for f in found["folds"]] == [36] * 3
    assert told[-1] == ("all questions", 120, 120)
    assert len(planted.asked) == len(set(planted.asked))
    assert json.loads((tmp_path / "results.json").read_text()) == found


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


def test_a_search_does_not_see_the_questions_that_it_is_tested_on(tiny, questions, tmp_path, monkeypatch):
    folds = assign_folds(questions, 3, 0)

    def otherwise_in_fold_0(method, instance) -> float:
        if folds[instance.cluster] == 0:
            return -best_at_half(method, instance) + noise(method)
        return best_at_half(method, instance)

    found = []
    for margin in (best_at_half, otherwise_in_fold_0):
        monkeypatch.setattr(scoring, "ask", Planted(margin))
        found.append(tune(tiny, questions, Tuning(trials=15), tmp_path / margin.__name__))
    one, other = found
    assert one["folds"][0]["settings"] == other["folds"][0]["settings"]
    assert one["folds"][0]["gain_where_searched"] == other["folds"][0]["gain_where_searched"]
    assert one["folds"][0]["gain_where_tested"] > 0 > other["folds"][0]["gain_where_tested"]
    assert one["folds"][1] != other["folds"][1]


def test_before_its_test_a_fold_is_asked_of_its_own_searches_alone(tiny, questions, tmp_path, monkeypatch):
    planted = Planted(best_at_half)
    monkeypatch.setattr(scoring, "ask", planted)
    found = tune(tiny, questions, Tuning(trials=15, folds=2), tmp_path)
    first = {i.id for i in questions if assign_folds(questions, 2, 0)[i.cluster] == 0}
    settings = found["folds"][0]["settings"]
    tested = name_of(OutRo(**{**settings, "detect_layers": tuple(settings["detect_layers"])}))
    of_fold = [setting for setting, question in planted.asked if question in first and setting != OFF]
    # The first setting that fold 0's own questions are asked under is the one that was chosen without them.
    assert of_fold[0] == tested


def test_where_nothing_helps_it_says_so(tiny, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ask", Planted(nothing_helps))
    found = tune(tiny, questions, Tuning(trials=15), tmp_path)
    assert found["gain"]["where_searched"]["lead"] > 0  # The best of noise looks better than nothing.
    assert found["gain"]["verdict"] == "no evidence of a difference"
    assert any("No evidence of a gain on questions" in sentence for sentence in sentences(found))


def test_where_everything_harms_it_switches_off(tiny, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ask", Planted(lambda method, i: noise(i.id) - 0.3 * (method is not None)))
    found = tune(tiny, questions, Tuning(trials=6), tmp_path)
    assert found["off"]
    assert found["settings"]["gamma"] == 0
    assert not found["settings"]["relax"]
    assert name_of(OutRo(**found["settings"])) == OFF
    assert found["gain"]["lead"]["difference"] == 0
    assert found["gain"]["lead"]["p"] == 1
    assert sentences(found)[0] == "No setting was better than the baseline, so the profile switches OutRo off."


def test_without_folds_the_gain_is_called_untested(tiny, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ask", Planted(best_at_half))
    found = tune(tiny, questions, Tuning(trials=5, folds=0), tmp_path)
    assert found["folds"] == []
    assert found["gain"]["verdict"] == "not tested"
    assert found["gain"]["lead"] is None
    assert "not tested" in sentences(found)[-1]


def test_hopeless_settings_are_given_up_early_and_never_chosen(tiny, questions, tmp_path, monkeypatch):
    def strong_ruins(method, instance) -> float:
        ruined = method is not None and method.rotate and method.gamma > 1
        return noise(instance.id) - 3 * ruined + 0.1 * (method is not None)

    monkeypatch.setattr(scoring, "ask", Planted(strong_ruins))
    found = tune(tiny, questions, Tuning(trials=20, folds=0), tmp_path)
    strong = [t for t in found["trials"] if t["settings"]["rotate"] and t["settings"]["gamma"] > 1]
    mild = [t for t in found["trials"] if t not in strong]
    assert len(strong) >= 2
    assert all(t["stopped"] and t["questions"] < 36 for t in strong)
    assert mild
    assert not any(t["stopped"] for t in mild)
    assert name_of(OutRo(**found["settings"])) in {name_of(OutRo(**t["settings"])) for t in mild}


def test_a_search_that_is_stopped_goes_on_and_asks_nothing_twice(tiny, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ask", Planted(best_at_half))
    tuning = Tuning(trials=6)
    whole = tune(tiny, questions, tuning, tmp_path / "whole")
    stopped, asked = tmp_path / "stopped", []
    for stop_after in (60, 90):
        planted = Planted(best_at_half, stop_after=stop_after)
        monkeypatch.setattr(scoring, "ask", planted)
        with pytest.raises(KeyboardInterrupt):
            tune(tiny, questions, tuning, stopped)
        asked += planted.asked
    planted = Planted(best_at_half)
    monkeypatch.setattr(scoring, "ask", planted)
    assert tune(tiny, questions, tuning, stopped) == whole
    asked += planted.asked
    assert len(asked) == len(set(asked))
    assert sum(len(r["margins"]) for r in read_records(stopped)) == len(asked)
    more = Planted(best_at_half)  # And it goes on with more settings than it was begun with.
    monkeypatch.setattr(scoring, "ask", more)
    longer = tune(tiny, questions, dataclasses.replace(tuning, trials=8), stopped)
    assert longer["trials"][:6] == whole["trials"]
    assert not set(more.asked) & set(asked)


def test_other_questions_are_another_run(tiny, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ask", Planted(best_at_half))
    tune(tiny, questions, Tuning(trials=1), tmp_path)
    with pytest.raises(OmnisinkError, match="begun otherwise"):
        tune(tiny, questions[:-1], Tuning(trials=1), tmp_path)


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


def test_a_file_that_cannot_be_read_leaves_its_question_out(smolomni, questions, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    instances = [questions[0], dataclasses.replace(questions[1], video=broken)]
    batches, left = prepare(smolomni, instances, {"clip-0": 0}, size=2, frames=Uniform(2))
    assert [i.id for b in batches for i in b.instances] == ["q0"]
    assert left.keys() == {"q1"}
    assert "broken.mp4" in left["q1"]
    with pytest.raises(OmnisinkError, match="no question could be read"):
        prepare(smolomni, instances[1:], {"clip-0": 0}, size=2, frames=Uniform(2))


def test_a_batch_that_does_not_fit_says_what_to_do(tiny, questions, tmp_path, monkeypatch):
    def never(*args):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(scoring, "ask", never)
    with pytest.raises(OmnisinkError, match="smaller --batch-size"):
        tune(tiny, questions, Tuning(trials=1), tmp_path)


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


@pytest.mark.parametrize("change", [{"answers": ()}, {"gold": "A,B"}, {"answers": ("A",)}])
def test_questions_without_a_margin_are_refused(tiny, questions, tmp_path, change):
    with pytest.raises(OmnisinkError, match="compares the likelihoods"):
        tune(tiny, [dataclasses.replace(questions[0], **change), *questions[1:]], Tuning(), tmp_path)


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"folds": 1}, {"folds": -1}, {"batch_size": 0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(OmnisinkError):
        Tuning(**wrong)


def test_folds_hold_whole_clusters_and_are_of_one_size(questions):
    folds = assign_folds(questions, 4, seed=3)
    sizes = [sum(folds[i.cluster] == fold for i in questions) for fold in range(4)]
    assert sizes == [9] * 4
    assert folds == assign_folds(list(reversed(questions)), 4, seed=3)
    assert folds != assign_folds(questions, 4, seed=4)
    with pytest.raises(OmnisinkError, match="13 folds need as many clusters"):
        assign_folds(questions, 13, seed=0)


def test_the_lead_is_bounded_and_has_the_sign_of_right_and_wrong():
    values = probability_margin(np.array([-800.0, -1.0, 0.0, 1.0, 800.0]))
    assert values[0] == -1
    assert values[-1] == 1
    assert values[2] == 0
    right = 1 / (1 + math.exp(-1))
    assert values[3] == pytest.approx(right - (1 - right))
    assert values[1] == -values[3]


def test_what_is_behind_by_chance_is_not_hopeless():
    clusters = [f"c{i}" for i in range(12)]
    base = np.zeros(12)
    close = np.array([0.1, -0.12] * 6)
    assert not is_dominated(close, base, clusters)
    assert is_dominated(close - 0.2, base, clusters)
    assert not is_dominated(close + 0.2, base, clusters)
    assert not is_dominated(close[:4] - 0.2, base[:4], clusters[:4])  # Too few to tell.
    assert not is_dominated(base, base, clusters)
    assert choose([]) is None


def test_without_optuna_the_error_says_what_to_install(tiny, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ask", Planted(best_at_half))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(OmnisinkError, match=re.escape(install("eval"))):
        tune(tiny, questions, Tuning(trials=1), tmp_path)


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
