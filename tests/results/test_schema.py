"""One check of data against a type: what is refused, and that the field is named."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest

from omnisink.errors import OmnisinkError, shown
from omnisink.results.checking import Range, check
from omnisink.results.reading import DEEPEST, parse_json, read_whole
from omnisink.results.records import Records, read_records
from omnisink.results.schema import TUNING_KEY, Count, Share, TuningRecord


class Inner(TypedDict):
    name: str


class Outer(TypedDict, total=False):
    count: Count
    share: bool | Share | None
    inner: Inner | None
    table: dict[str, list[float]]
    free: Any


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"count": 0, "share": True, "inner": None, "table": {}, "free": object()},
        {"count": 2**53, "share": 0.5, "inner": {"name": "", "more": 1}, "table": {"a": [1, 2.5]}},
        {"share": 1},
        {"unknown": 1},
    ],
)
def test_what_fits(data: Any) -> None:
    check(data, Outer, "file")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], r"file: it must be an object, got \[\]"),
        ({"count": True}, "file: count must be a whole number of at least 0, got True"),
        ({"count": -1}, "count must be"),
        ({"count": 1.0}, "count must be"),
        ({"count": "1"}, "count must be"),
        ({"count": 2**60}, "count must be"),
        ({"share": 1.01}, "share must be true or false, a number from 0 to 1 or null, got 1.01"),
        ({"share": float("nan")}, "share must be"),
        ({"share": 10**400}, "share must be .* got a whole number of 1329 bits"),
        ({"inner": {}}, r"it has no 'inner.name'"),
        ({"inner": {"name": 1}}, "inner.name must be a text, got 1"),
        ({"inner": []}, "inner must be an object or null"),
        ({"table": {"a": 1}}, "table.a must be a list, got 1"),
        ({"table": {"a": [1, float("inf")]}}, "table.a.1 must be a number, got inf"),
        ({"table": {"a": [10**400]}}, "table.a.0 must be a number"),
    ],
)
def test_what_does_not_fit_is_named(data: Any, why: str) -> None:
    with pytest.raises(OmnisinkError, match=why):
        check(data, Outer, "file")


def test_a_range_has_its_ends() -> None:
    for number in (0, 3.0):
        check(number, Annotated[float, Range(0, 3)], "file")
    with pytest.raises(OmnisinkError, match="it must be a number from 0 to 3"):
        check(3.1, Annotated[float, Range(0, 3)], "file")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[" * 100_000, "file: it is not JSON"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} deep"),
        ('{"a":' * 300 + "1" + "}" * 300, f"more than {DEEPEST} deep"),
        ("[NaN]", "NaN is not a number in JSON"),
        ("[-Infinity]", "-Infinity is not a number in JSON"),
        (b"\x1f\x8b\x08\x00", "file: it is not JSON"),
        (b'{"a": "\xc3', "file: it is not JSON"),
        ("1" * 5000, "file: it is not JSON"),
        ("", "file: it is not JSON"),
    ],
)
def test_what_is_not_json_is_one_short_line(content: str | bytes, why: str) -> None:
    with pytest.raises(OmnisinkError, match=why) as caught:
        parse_json(content, "file")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_json_of_the_greatest_depth_is_read() -> None:
    assert parse_json("[" * DEEPEST + "]" * DEEPEST, "file")


def test_files_that_are_none_or_have_no_end(tmp_path: Any) -> None:
    (tmp_path / "large").write_bytes(b"x" * 11)
    for path, why in {
        tmp_path: "it is a folder",
        "/dev/zero": "it is a device",
        tmp_path / "none": "No such file",
        "a\0b": "null",
        tmp_path / "large": "larger than 10 bytes",
    }.items():
        with pytest.raises(OmnisinkError, match=f"cannot be read: .*{why}"):
            read_whole(path, 10)


def test_a_value_is_shown_shortly() -> None:
    values: list[Any] = ["x" * 10**7, [["x" * 10**6] * 100] * 100, {"a" * 10**7: 1}, 10**10000, -(10**5000)]
    assert all(len(shown(value)) < 700 for value in values)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"setting": "a", "batch": "b", "settings": null, "margins": {"q": "1"}}', "margins.q must be a number"),
        (b'{"setting": "a", "batch": "b", "settings": null, "margins": {"q": NaN}}', "NaN is not a number"),
        (b'{"setting": "a", "batch": "b", "settings": null, "margins": {"q": 1e999}}', "margins.q must be a number"),
        (b'{"setting": "a", "batch": "b", "settings": null, "margins": [1]}', "margins must be an object"),
        (b'{"setting": "a", "batch": "b", "settings": 3, "margins": {}}', "settings must be an object or null, got 3"),
        (b'{"setting": 1, "batch": "b", "settings": null, "margins": {}}', "setting must be a text, got 1"),
        (b'{"setting": "a", "batch": "b", "settings": null}', "it has no 'margins'"),
        (b'{"setting": "a\xc3', "it is not JSON"),
        (b"\x1f\x8b\x08\x00", "it is not JSON"),
        (b"[1]", "not a JSON object but list"),
    ],
)
def test_a_damaged_record_is_named_when_a_search_goes_on(tmp_path: Any, line: bytes, why: str) -> None:
    good = b'{"setting": "a", "batch": "x", "settings": null, "margins": {}}'
    (tmp_path / "records.jsonl").write_bytes(b"\n".join([good, line, good.replace(b"x", b"y"), b""]))
    for read in (
        lambda: Records(tmp_path, TUNING_KEY, TuningRecord),
        lambda: read_records(tmp_path, TUNING_KEY, TuningRecord),
    ):
        with pytest.raises(OmnisinkError, match=f"records.jsonl:2: .*{why}"):
            read()
