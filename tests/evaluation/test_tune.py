"""Tuning: it finds what was planted, tests it honestly, gives up what is hopeless, and repeats nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys

import numpy as np
import pytest
import torch

from omnisink import OutRo
from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tuning import scoring
from omnisink.evaluation.tuning.scoring import OFF, name_of, prepare
from omnisink.evaluation.tuning.search import choose, is_dominated, probability_margin
from omnisink.evaluation.tuning.tune import Tuning, assign_folds, tune
from omnisink.evaluation.tuning.tuned import sentences
from omnisink.extras import install
from omnisink.media import Uniform
from omnisink.results.records import read_records
from tests.evaluation.planted import Planted, best_at_half, noise, nothing_helps, planted_questions


@pytest.fixture(scope="module")
def questions() -> list[Instance]:
    """Make 36 questions, three about each of 12 clips."""
    return planted_questions()


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
