"""The runner: batches equal single questions, kills lose little, and errors are records and never answers."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from omnisink import OutRo
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.evaluation.running import run as running
from omnisink.evaluation.running.asking import ask
from omnisink.evaluation.running.batchsize import BatchSize
from omnisink.evaluation.running.run import Settings, checksum, run
from omnisink.evaluation.tasks.task import find_task
from omnisink.methods.registry import parse_methods
from omnisink.results.records import Records, read_records

METHODS = parse_methods("baseline,outro:gamma=0.5,outro:relax")


def by_key(folder):
    return {(r["id"], r["method"], r["attempt"]): r for r in read_records(folder)}


@pytest.fixture(scope="module")
def whole(tiny, asked, tmp_path_factory):
    """Run everything once, one question at a time, nothing shared."""
    folder = tmp_path_factory.mktemp("whole")
    run(tiny, asked, Settings(METHODS, batch_size=1, share=False), folder)
    return by_key(folder)


def test_every_question_is_answered_under_every_method(whole, asked):
    assert whole.keys() == {(i.id, name, 0) for i in asked for name in METHODS}
    for record in whole.values():
        assert record["error"] is None
        assert record["right"] is (record["parsed"] == record["gold"])
        assert record["prompt_tokens"] > 0
        assert record["seconds"] > 0
        assert 1 <= record["new_tokens"] <= 4
        assert (record["sinks"] is None) == (record["method"] == "baseline")
    assert any(record["sinks"] for record in whole.values())


@pytest.mark.parametrize("score", ["generate", "likelihood"])
@pytest.mark.parametrize("model", ["tiny", pytest.param("smolomni", marks=pytest.mark.real)])
def test_methods_that_share_layers_answer_as_they_do_alone_to_the_bit(request, model, score, asked, tmp_path):
    """Times are taken of batches that share nothing: of one question in twenty, and not of the first batch."""
    loaded = request.getfixturevalue(model)
    if model == "smolomni":
        asked = find_task("synthav").load(limit=4)
    elif score == "likelihood":
        asked = [a for a in asked if a.parser == "letter"]  # Of its tokenizer, "yes" is three tokens.
    found = {}
    for share in (True, False):
        run(loaded, asked, Settings(METHODS, score, batch_size=1, share=share), tmp_path / str(share))
        found[share] = by_key(tmp_path / str(share))
    for key, record in found[True].items():
        measured = {name: record[name] for name in ("seconds", "memory_mb")}
        assert record == found[False][key] | measured
    timed = {key[0] for key, record in found[True].items() if record["seconds"] is not None}
    assert len(timed) == 1
    assert all(record["seconds"] > 0 for record in found[False].values())


def test_what_is_shared_is_kept_of_a_method_and_not_of_the_whole_model(tiny, asked, tmp_path, monkeypatch):
    order = []

    def watch(loaded, inputs, instances, method, score):
        order.append(method is None)
        return ask(loaded, inputs, instances, method, score)

    monkeypatch.setattr(running, "ask", watch)
    run(tiny, asked[:2], Settings(METHODS, batch_size=1), tmp_path)
    assert order == [False, False, True] * 2


def test_batches_are_counted_over_calls_so_that_some_are_timed_in_chunks_of_a_few_questions(tiny, asked, tmp_path):
    size = BatchSize(1)
    for at in range(4):
        run(tiny, asked[at : at + 1], Settings(METHODS), tmp_path / str(at), size=size)
    timed = [r["id"] for at in range(4) for r in read_records(tmp_path / str(at)) if r["seconds"] is not None]
    assert timed == [asked[1].id] * len(METHODS)


def test_a_method_alone_has_nothing_to_share_and_is_timed(tiny, asked, tmp_path):
    run(tiny, asked, Settings({"baseline": None}, batch_size=8), tmp_path)
    found = by_key(tmp_path).values()
    assert all(record["seconds"] > 0 for record in found)
    assert [record["batch"] for record in found].count(8) == 8  # No small batch is set apart to be timed.


@pytest.mark.parametrize("size", [3, 12, None])
def test_a_batch_answers_as_its_questions_alone(tiny, asked, tmp_path, whole, size):
    run(tiny, asked, Settings(METHODS, batch_size=size), tmp_path)
    found = by_key(tmp_path)
    assert found.keys() == whole.keys()
    assert max(r["batch"] for r in found.values()) > 1
    for key, record in found.items():
        assert record["text"] == whole[key]["text"]
        assert record["prompt_tokens"] == whole[key]["prompt_tokens"]
        assert record["sinks"] == whole[key]["sinks"]
        if record["loss"] is not None:
            assert record["loss"] == pytest.approx(whole[key]["loss"], abs=1e-4)


def test_the_likeliest_answer_takes_one_pass_and_agrees_with_the_first_token_of_the_reply(
    tiny, asked, tmp_path, whole
):
    run(tiny, asked[1:3], Settings(METHODS, score="likelihood", batch_size=2), tmp_path)
    for key, record in by_key(tmp_path).items():
        assert record["text"] is None
        assert record["new_tokens"] == 0
        assert record["parsed"] in ("A", "B")
        assert record["loss"] == pytest.approx(whole[key]["loss"], abs=1e-4)
        assert (record["margin"] > 0) == record["right"]


def test_an_answer_of_several_tokens_has_no_likelihood(tiny, asked, tmp_path):
    with pytest.raises(OmnisinkError, match=r"the first questions all fail.*not one token each"):
        run(
            tiny,
            [dataclasses.replace(a, id=str(i)) for i, a in enumerate(asked[:1] * 9)],
            Settings({"baseline": None}, score="likelihood"),
            tmp_path,
        )
    assert all(r["right"] is None for r in read_records(tmp_path))


def test_a_run_that_is_stopped_goes_on_and_asks_nothing_twice(tiny, asked, tmp_path, whole, monkeypatch):
    calls = 0

    def stop_at_third(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return ask(*args, **kwargs)

    monkeypatch.setattr(running, "ask", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path)
    before = by_key(tmp_path)
    assert len(before) == 8  # A batch of four under two methods.
    asked_again = []

    def watch(loaded, inputs, instances, method, score):
        asked_again.extend((i.id, method) for i in instances)
        return ask(loaded, inputs, instances, method, score)

    monkeypatch.setattr(running, "ask", watch)
    run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path)
    after = by_key(tmp_path)
    assert {k: after[k] for k in before} == before
    assert after.keys() == whole.keys()
    assert len(asked_again) == len(set(asked_again)) == len(whole) - len(before)
    assert {k: r["text"] for k, r in after.items()} == {k: r["text"] for k, r in whole.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"methods": parse_methods("baseline,outro:gamma=0.6,outro:relax")},
        {"score": "likelihood"},
    ],
)
def test_other_settings_are_refused(tiny, asked, tmp_path, change):
    settings = Settings(METHODS, batch_size=4)
    run(tiny, asked[:2], settings, tmp_path)
    with pytest.raises(OmnisinkError, match="begun otherwise"):
        run(tiny, asked[:2], dataclasses.replace(settings, **change), tmp_path)
    with pytest.raises(OmnisinkError, match="begun otherwise"):
        run(tiny, [dataclasses.replace(asked[0], gold="yes"), asked[1]], settings, tmp_path)


def test_another_batch_size_is_no_other_run(tiny, asked, tmp_path):
    run(tiny, asked[:2], Settings(METHODS, batch_size=2), tmp_path)
    before = read_records(tmp_path)
    run(tiny, asked[:2], Settings(METHODS, batch_size=1), tmp_path)
    assert read_records(tmp_path) == before
    assert len(before) == 2 * len(METHODS)


def test_what_the_disk_does_not_take_is_no_error_of_a_question(tiny, asked, tmp_path, monkeypatch):
    """It ends the run, with its own message, and the same line goes on from there."""
    append, written = Records.append, []

    def full(self, record):
        if len(written) == 5:
            raise OmnisinkError("no space left on device")
        written.append(record)
        append(self, record)

    monkeypatch.setattr(Records, "append", full)
    with pytest.raises(OmnisinkError, match="no space left"):
        run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path)
    monkeypatch.undo()
    assert all(r["error"] is None for r in read_records(tmp_path))
    assert len(read_records(tmp_path)) == 5
    run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path)
    assert len(by_key(tmp_path)) == len(asked) * len(METHODS)


def test_what_was_learned_of_sizes_serves_the_next_call(tiny, asked, tmp_path):
    size = BatchSize()
    size.size = 6
    run(tiny, asked, Settings({"baseline": None}), tmp_path, size=size)
    assert read_records(tmp_path)[0]["batch"] == 6


def test_an_error_is_a_record_of_one_question_and_can_be_tried_again(tiny, asked, tmp_path, whole, monkeypatch):
    def fail(loaded, inputs, instances, method, score):
        if any(i.id == "q5" for i in instances) and method is not None:
            raise RuntimeError("the kernel is at fault")
        return ask(loaded, inputs, instances, method, score)

    monkeypatch.setattr(running, "ask", fail)
    told = []
    run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path, progress=lambda *now: told.append(now))
    found = by_key(tmp_path)
    wrong = {key for key, r in found.items() if r["error"] is not None}
    assert wrong == {("q5", name, 0) for name in METHODS if name != "baseline"}
    for key in wrong:
        assert found[key]["error"] == "RuntimeError: the kernel is at fault"
        assert found[key]["right"] is None
        assert found[key]["text"] is None
    assert told[-1] == (len(whole), len(whole), 2)
    assert {k: r["text"] for k, r in found.items() if k not in wrong} == {
        k: r["text"] for k, r in whole.items() if k not in wrong
    }
    monkeypatch.setattr(running, "ask", ask)
    run(tiny, asked, Settings(METHODS, batch_size=4), tmp_path)
    assert by_key(tmp_path) == found  # Without being asked to, nothing is tried again.
    run(tiny, asked, Settings(METHODS, batch_size=4, retry_errors=True), tmp_path)
    again = by_key(tmp_path)
    assert again.keys() - found.keys() == {("q5", name, 1) for _, name, _ in wrong}
    for _, name, _ in wrong:
        assert again["q5", name, 1]["text"] == whole["q5", name, 0]["text"]


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(tiny, asked, tmp_path, whole, monkeypatch):
    sizes = []

    def small(loaded, inputs, instances, method, score):
        sizes.append(len(instances))
        if len(instances) > 2:
            raise torch.OutOfMemoryError("too much")
        return ask(loaded, inputs, instances, method, score)

    monkeypatch.setattr(running, "ask", small)
    run(tiny, asked, Settings(METHODS, batch_size=8), tmp_path)
    found = by_key(tmp_path)
    assert {k: r["text"] for k, r in found.items()} == {k: r["text"] for k, r in whole.items()}
    assert max(sizes) > 2
    assert sizes.index(2) == sizes.index(max(sizes)) + 2  # eight, four, two; and never large again
    assert set(sizes[sizes.index(2) :]) <= {1, 2}


def test_a_question_that_never_fits_is_an_error(tiny, asked, tmp_path, monkeypatch):
    def never(loaded, inputs, instances, method, score):
        if any(i.id == "q3" for i in instances):
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes")
        return ask(loaded, inputs, instances, method, score)

    monkeypatch.setattr(running, "ask", never)
    run(tiny, asked, Settings({"baseline": None}, batch_size=4), tmp_path)
    failed = [r for r in read_records(tmp_path) if r["error"] is not None]
    assert [r["id"] for r in failed] == ["q3"]
    assert "not enough memory" in failed[0]["error"]


def test_a_file_that_cannot_be_read_is_an_error_of_its_questions_alone(smolomni, asked, tmp_path, clip):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    instances = [dataclasses.replace(asked[1], video=clip), dataclasses.replace(asked[2], video=broken)]
    run(smolomni, instances, Settings({"baseline": None}, batch_size=2), tmp_path / "run")
    good, bad = sorted(read_records(tmp_path / "run"), key=lambda r: r["id"])
    assert good["error"] is None
    assert good["frames"] > 0
    assert good["audio_tokens"] > 0
    assert "broken.mp4" in bad["error"]
    assert bad["right"] is None


def test_a_method_that_refuses_the_model_stops_the_run_at_once(tiny, asked, tmp_path, monkeypatch):
    def refuse(*args):
        raise UnsupportedModelError("not this one")

    monkeypatch.setattr(running, "ask", refuse)
    with pytest.raises(UnsupportedModelError):
        run(tiny, asked, Settings(METHODS), tmp_path)
    assert not (tmp_path / "records.jsonl").read_bytes()


def test_a_run_in_which_everything_fails_is_stopped(tiny, asked, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("always")

    monkeypatch.setattr(running, "ask", fail)
    with pytest.raises(OmnisinkError, match=r"the first questions all fail.*always"):
        run(tiny, asked, Settings({"baseline": None}, batch_size=4), tmp_path)


def test_the_manifest_says_what_was_run(tiny, asked, tmp_path):
    run(tiny, asked[:1], Settings({"outro": OutRo(gamma=0.5)}), tmp_path, facts={"model": {"name": "tiny"}})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["methods"]["outro"]["gamma"] == 0.5
    assert manifest["methods"]["outro"]["name"] == "OutRo"
    assert manifest["model"] == {"name": "tiny"}
    assert manifest["task"] == {"questions": 1, "sha256": checksum(asked[:1])}


@pytest.mark.parametrize("wrong", [{"score": "guess"}, {"batch_size": 0}, {"threads": 0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(OmnisinkError):
        Settings({"baseline": None}, **wrong)


def test_no_question_is_an_error(tiny, tmp_path):
    with pytest.raises(OmnisinkError, match="no question"):
        run(tiny, [], Settings({"baseline": None}), tmp_path)


def test_an_answer_read_off_states_that_overflowed_is_an_error_and_the_run_goes_on(tiny, asked, tmp_path, monkeypatch):
    """A NaN would be no record, and an infinite loss none either: the one is no answer, and the other has no loss."""

    def overflowing(loaded, inputs, instances, *rest):
        replies = ask(loaded, inputs, instances, *rest)
        odd = {asked[1].id: float("nan"), asked[2].id: -float("inf")}
        return [
            dataclasses.replace(reply, log_likelihoods=dict.fromkeys(reply.log_likelihoods, odd[i.id]))
            if i.id in odd
            else reply
            for i, reply in zip(instances, replies, strict=True)
        ]

    monkeypatch.setattr(running, "ask", overflowing)
    run(tiny, asked, Settings(parse_methods("baseline"), batch_size=4), tmp_path)
    found = {record["id"]: record for record in read_records(tmp_path)}
    assert found.keys() == {instance.id for instance in asked}
    assert "the likelihoods of its answers are not numbers" in found[asked[1].id]["error"]
    assert found[asked[1].id]["right"] is None
    assert found[asked[2].id]["error"] is None
    assert found[asked[2].id]["loss"] is None
    assert sum(record["error"] is not None for record in found.values()) == 1
