"""Recordings on disk: equal after a round trip, plain data only, clear where broken."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnisink.errors import OmnisinkError
from omnisink.methods.block_records import Record
from omnisink.methods.measure import Recorder, record
from omnisink.methods.measurements import MEASURED, Recording
from tests.methods.reference_edits import padded
from tests.reference_outro import prompt, tiny_llama


@pytest.fixture(scope="module")
def recording():
    """Record a batch of two prompts."""
    found = record(tiny_llama(), **padded([prompt(13, (0, 6)), prompt(8)]))
    return Recording(
        found.arrays, found.layers, found.sets, found.criteria, found.token_mask, {"model": "tïny", "revision": None}
    )


@pytest.mark.parametrize("suffix", ["", ".npz", ".json"])
def test_a_round_trip_changes_nothing(recording, tmp_path, suffix):
    written = recording.save(tmp_path / f"run.1{suffix}")
    assert [p.name for p in written] == ["run.1.npz", "run.1.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.1.json", "run.1.npz"]
    again = Recording.load(tmp_path / f"run.1{suffix}")
    assert set(again.arrays) == set(recording.arrays) == set(MEASURED)
    for name, array in recording.arrays.items():
        assert again[name].dtype == array.dtype
        assert np.array_equal(again[name], array, equal_nan=array.dtype.kind == "f")
    assert (again.token_mask == recording.token_mask).all()
    assert (again.layers, again.sets) == (recording.layers, recording.sets)
    assert again.criteria == recording.criteria
    assert again.facts == {"model": "tïny", "revision": None}
    assert again.sinks().positions(0, 0) == recording.sinks().positions(0, 0) == [0, 6]
    again.save(tmp_path / "twice")
    assert np.array_equal(Recording.load(tmp_path / "twice")["mass"], recording["mass"])


def test_every_array_has_the_dimensions_that_are_written_beside_it(recording, tmp_path):
    _, names = recording.save(tmp_path / "run")
    labels = json.loads(names.read_text(encoding="utf-8"))
    sizes = {"sequence": 2, "layer": 6, "token": 13, "head": 4, "kv_head": 2, "depth": 12, "value_depth": 12}
    sizes |= {"channel": 48, "set": 1, "criterion": 1, "part": 3}
    for name, array in recording.arrays.items():
        dims = labels["arrays"][name]["dims"]
        assert dims == list(recording.dims(name))
        assert array.shape == tuple(sizes[d] for d in dims), name
    assert labels["parts"] == ["whole", "sink", "rest"]


def test_the_file_holds_no_pickle(recording, tmp_path):
    data, _ = recording.save(tmp_path / "run")
    with np.load(data, allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= set("fbi")
        assert set(file.files) == {*MEASURED, "real"}


def test_pickled_arrays_are_not_read(recording, tmp_path):
    data, _ = recording.save(tmp_path / "run")

    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("a pickle was run",)

    np.savez(data, token_mask=np.array([Bomb()], dtype=object), mass=recording["mass"])
    with pytest.raises(OmnisinkError, match="not a recording"):
        Recording.load(data)
    data.write_bytes(pickle.dumps({"mass": 1}))
    with pytest.raises(OmnisinkError, match="not a recording"):
        Recording.load(data)


def halve(data, names):
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])


def empty(data, names):
    data.write_bytes(b"")


def flip(data, names):
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    content[len(content) // 3] ^= 0xFF
    data.write_bytes(bytes(content))


def one_array(data, names):
    with data.open("wb") as file:
        np.save(file, np.zeros(3))


def without_real(data, names):
    np.savez(data, mass=np.zeros(3))


def rewrite(change):
    def broken(data, names):
        names.write_text(change(names.read_text(encoding="utf-8")), encoding="utf-8")

    return broken


BROKEN = {
    "half a file": halve,
    "empty": empty,
    "flipped bits": flip,
    "one array": one_array,
    "no padding": without_real,
    "no data": lambda data, names: data.unlink(),
    "no names": lambda data, names: names.unlink(),
    "names cut off": rewrite(lambda text: text[:100]),
    "names are a list": rewrite(lambda text: "[1]"),
    "names are null": rewrite(lambda text: "null"),
    "names without layers": rewrite(lambda text: text.replace('"layers"', '"rows"')),
    "names not UTF-8": lambda data, names: names.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_files_are_named(recording, tmp_path, how):
    data, names = recording.save(tmp_path / "run")
    BROKEN[how](data, names)
    with pytest.raises(OmnisinkError, match=r"run is not a recording: \S+"):
        Recording.load(tmp_path / "run")


def test_another_format_is_named(recording, tmp_path):
    _, names = recording.save(tmp_path / "run")
    names.write_text(names.read_text(encoding="utf-8").replace("recording.v1", "recording.v9"), encoding="utf-8")
    with pytest.raises(
        OmnisinkError, match=r"unknown format 'omnisink.recording.v9', expected 'omnisink.recording.v1'"
    ):
        Recording.load(tmp_path / "run")


def test_what_cannot_be_written_is_named(recording, tmp_path):
    with pytest.raises(OmnisinkError, match=r"nowhere.* could not be written"):
        recording.save(tmp_path / "nowhere" / "run")
    odd = Recording(
        recording.arrays, recording.layers, recording.sets, recording.criteria, recording.token_mask, {"a": tmp_path}
    )
    with pytest.raises(OmnisinkError, match=r"cannot write .*plain data"):
        odd.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_answered_with_the_known_ones(recording):
    with pytest.raises(OmnisinkError, match=r"no set is called 'text'; there are massive_activation"):
        recording.mass_on("text")
    with pytest.raises(OmnisinkError, match=r"'maps' was not recorded; there are .*mass"):
        recording["maps"]


def test_nothing_recorded_is_an_error():
    with pytest.raises(OmnisinkError, match="nothing was recorded"):
        Recording.of(Record(1, 5), Recorder().set_names, [])


def repacked(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], None]:
    def broken(data: Path, names: Path) -> None:
        with np.load(data) as file:
            arrays = {name: file[name] for name in file.files}
        change(arrays)
        np.savez_compressed(data, **arrays)

    return broken


def claiming(data: Path, names: Path) -> None:
    """Have the header of an array of a few bytes claim 8 TB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(data, "a") as packed:
        packed.writestr("value_norm2.npy", header.getvalue())


def relabelled(**changes: Any) -> Callable[[Path, Path], None]:
    def broken(data: Path, names: Path) -> None:
        names.write_text(json.dumps({**json.loads(names.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return broken


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (relabelled(layers=[0]), "which does not fit sequence, layer"),
        (relabelled(layers="01"), "layers must be a list"),
        (relabelled(layers=[-1, 0]), "layers.0 must be a whole number"),
        (relabelled(layers=[True]), "layers.0 must be a whole number"),
        (relabelled(sets=["x", "y", "z"]), "does not fit"),
        (relabelled(sets=[1]), "sets.0 must be a text"),
        (relabelled(criteria=["x"]), "criteria.0 must be an object"),
        (relabelled(criteria=[{}] * 7), "does not fit"),
        (relabelled(facts=1), "facts must be an object"),
        (lambda data, names: names.write_text("[" * 100_000, encoding="utf-8"), "it is not JSON"),
        (repacked(lambda arrays: arrays.update(strange=np.zeros(3))), "the array 'strange' is none that is measured"),
        (repacked(lambda arrays: arrays.update(mass=np.zeros((1, 1)))), "mass is of the shape"),
        (repacked(lambda arrays: arrays.update(mass=arrays["mass"].astype(str))), "mass holds <U"),
        (repacked(lambda arrays: arrays.update(real=np.zeros(3, bool))), "real is of the shape"),
        (repacked(lambda arrays: arrays.update(real=arrays["real"].astype(int))), "real is of the shape"),
        (claiming, r"claims \(1000000, 1000000\) of float64, and holds 0 bytes"),
        (lambda data, names: data.write_bytes(b"PK" + b"x" * 50), "BadZipFile"),
    ],
)
def test_labels_and_arrays_that_do_not_fit_are_named(recording, tmp_path, how, why):
    data, names = recording.save(tmp_path / "run")
    how(data, names)
    with pytest.raises(OmnisinkError, match=f"run is not a recording: .*{why}"):
        Recording.load(tmp_path / "run")
