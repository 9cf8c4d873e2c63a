"""The comparison with lmms-eval: only equal answers count, and lines of the history become its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.history import PAGE, append, write_lmms_table, write_table
from benchmarks.lmms import Side, check_same
from benchmarks.pairs import compare, rounded
from omnisink.errors import OmnisinkError

SAID = {("outro", "a"): "yes", ("outro", "b"): "no"}


def test_other_answers_or_questions_are_refused() -> None:
    check_same(SAID, dict(SAID))
    with pytest.raises(OmnisinkError, match=r"1 of 2 answers differ.*'b', 'no', 'yes'"):
        check_same(SAID, {**SAID, ("outro", "b"): "yes"})
    with pytest.raises(OmnisinkError, match="answered 2 questions and omnisink 1"):
        check_same(SAID, {("outro", "a"): "yes"})


def test_the_ratio_says_how_many_times_as_fast_omnisink_is(tmp_path: Path) -> None:
    plain, harness = Side(lambda _: SAID, tmp_path), Side(lambda _: SAID, tmp_path)
    compare(plain.run, harness.run, 3, warm_up=0)
    assert plain.said == harness.said == SAID
    assert len(plain.wall) == len(plain.cpu) == len(harness.wall) == 3
    one = compare(lambda: 2.0, lambda: 5.0, 1, warm_up=0)
    assert (one.p20, one.p50, one.p80, one.plain_ms, one.pairs) == (2.5, 2.5, 2.5, 2000.0, 1)
    history, page = tmp_path / "history.csv", tmp_path / "benchmarks.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    where = {"date": "2026-01-02T03:04Z", "machine": "A CPU", "threads": 2, "load": 0.5, "dtype": "float32"}
    append([{"model": "lmms", "case": "150 questions", **rounded(one)}], history, where)
    append([{"model": "tiny", "case": "decode 24", **rounded(one)}], history, where)
    write_lmms_table(history, page)
    write_table(history, page)
    row = "| 150 questions | 2.500 | 2.500 to 2.500 | 2,000 ms | 1 | A CPU, 2 threads, load 0.5 | 2026-01-02 |"
    assert page.read_text(encoding="utf-8").count(row) == 1
