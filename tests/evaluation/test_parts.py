"""Several processes at one run: shares that do not overlap, records that count once, and kills that are survived."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.parts import Rank, read_parts, whole
from omnisink.evaluation.running.run import Settings, run
from omnisink.methods.registry import parse_methods

METHODS = parse_methods("baseline,outro:gamma=0.5")


@pytest.mark.parametrize("world", [1, 2, 5])
def test_the_shares_of_the_ranks_are_all_questions_once(asked, world):
    shares = [Rank(rank, world).share(asked) for rank in range(world)]
    assert sorted(i.id for share in shares for i in share) == sorted(i.id for i in asked)
    assert sum(len({i.cluster for i in share}) for share in shares) == len({i.cluster for i in asked})


def test_what_torchrun_says_is_read_and_nonsense_is_refused():
    assert Rank.of_environment({}) == Rank()
    assert Rank.of_environment({"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}) == Rank(1, 3, 0)
    with pytest.raises(OmnisinkError, match="not a valid rank"):
        Rank.of_environment({"RANK": "3", "WORLD_SIZE": "3"})
    with pytest.raises(OmnisinkError, match="not a valid rank"):
        Rank.of_environment({"RANK": "-1", "WORLD_SIZE": "3"})


def test_ranks_together_answer_what_one_answers(tiny, asked, tmp_path):
    run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path / "one")
    for rank in (0, 1, 2):
        assert not (tmp_path / "three").exists() or not whole(tmp_path / "three", 24)
        run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path / "three", rank=Rank(rank, 3))
    assert whole(tmp_path / "three", 24)
    one, three = (
        {(r["id"], r["method"]): r["text"] for r in read_parts(tmp_path / name)} for name in ("one", "three")
    )
    assert one == three


def test_a_run_is_taken_up_by_another_number_of_ranks(tiny, asked, tmp_path):
    run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path, rank=Rank(1, 2))
    before = len(read_parts(tmp_path))
    assert 0 < before < 24
    run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path)
    assert whole(tmp_path, 24)
    lines = sum(len(p.read_text().splitlines()) for p in tmp_path.rglob("records.jsonl"))
    assert lines == 24


def test_a_question_that_two_ranks_answered_counts_once(tiny, asked, tmp_path):
    for rank in (Rank(0, 2), Rank(0, 3)):
        run(tiny, asked[:2], Settings(METHODS, batch_size=4), tmp_path / str(rank.world), rank=rank)
    (tmp_path / "3" / "part-0-of-3").rename(tmp_path / "2" / "part-0-of-3")
    assert sum(len(p.read_text().splitlines()) for p in (tmp_path / "2").rglob("records.jsonl")) == 8
    assert len(read_parts(tmp_path / "2")) == 4


def test_other_settings_are_refused_on_every_rank(tiny, asked, tmp_path):
    run(tiny, asked, Settings(METHODS), tmp_path, rank=Rank(1, 2))
    with pytest.raises(OmnisinkError, match="begun otherwise"):
        run(tiny, [replace(asked[0], text="other"), *asked[1:]], Settings(METHODS), tmp_path, rank=Rank(1, 2))
