"""Reading ahead: each file once, in order, never too much at a time; and sizes of batches."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnisink.errors import MediaError
from omnisink.evaluation.running.batchsize import LARGEST, SMALLEST, BatchSize, out_of_memory
from omnisink.evaluation.running.prefetch import MOST_LETTERS, Ready, Work, batches, together, windows
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.prompts import prompt_of
from omnisink.media import Uniform
from omnisink.questions.prompt import Media, Prompt


class Reader:
    """An adapter whose videos are as long as their names say, and that notes what it read."""

    modalities = frozenset({"video", "audio"})

    def __init__(self, delay: float = 0.0) -> None:
        self.read_files: list[str] = []
        self.delay, self.lock = delay, threading.Lock()

    def read(self, loaded, prompts):
        (prompt,) = prompts
        time.sleep(self.delay)
        with self.lock:
            self.read_files.append(prompt.video.name)
        if prompt.video.name.startswith("broken"):
            raise MediaError(f"{prompt.video}: it is broken")
        frames = np.zeros((int(prompt.video.stem.split("-")[-1]), 2, 2, 3), np.uint8)
        return [Media(video=SimpleNamespace(frames=frames, audio=None))]


def work_of(asked, names, tmp_path):
    made = [replace(asked[0], id=f"{i}", video=tmp_path / name, audio=False) for i, name in enumerate(names)]
    return [Work(instance, (("baseline", 0),)) for instance in made]


def loaded_with(reader):
    return SimpleNamespace(adapter=reader)


def test_neighbours_share_what_is_read_and_the_order_is_kept(asked, tmp_path):
    reader = Reader(delay=0.002)
    names = ["a-1.mp4", "a-1.mp4", "broken-2.mp4", "c-3.mp4", "c-3.mp4", "c-3.mp4", "d-4.mp4"]
    works = work_of(asked, names, tmp_path)
    found = [ready for window in windows(loaded_with(reader), works, size=3, threads=4) for ready in window]
    assert [ready.work for ready in found] == works
    assert sorted(reader.read_files) == sorted(set(names))
    assert [ready.error is not None for ready in found] == [name.startswith("broken") for name in names]
    assert "it is broken" in str(found[2].error)
    assert found[0].media is found[1].media


def test_no_more_is_read_ahead_than_a_window(asked, tmp_path):
    reader = Reader()
    works = work_of(asked, [f"clip{i}-1.mp4" for i in range(40)], tmp_path)
    seen = 0
    for window in windows(loaded_with(reader), works, size=4, threads=2):
        time.sleep(0.05)
        seen += len(window)
        assert len(reader.read_files) <= seen + 4
    assert seen == 40


def test_reading_stops_with_whoever_reads(asked, tmp_path):
    reader = Reader(delay=0.01)
    works = work_of(asked, [f"clip{i}-1.mp4" for i in range(40)], tmp_path)
    stream = windows(loaded_with(reader), works, size=4, threads=1)
    next(stream)
    stream.close()
    time.sleep(0.1)
    before = len(reader.read_files)
    time.sleep(0.1)
    assert len(reader.read_files) == before < 40


def test_a_batch_is_of_one_kind_and_the_longest_come_first(asked, tmp_path):
    works = work_of(asked, ["a-3.mp4", "b-9.mp4", "broken-1.mp4", "c-5.mp4"], tmp_path)
    works.append(Work(replace(works[0].instance, id="more", max_new_tokens=99), works[0].methods))
    works.append(Work(replace(works[0].instance, id="again"), (("outro", 1),)))
    (window,) = windows(loaded_with(Reader()), works, size=10, threads=1)
    found = [[ready.work.instance.id for ready in batch] for batch in batches(window)]
    assert found == [["1", "3", "0"], ["more"], ["again"]]


def test_a_model_that_does_not_hear_is_given_the_picture_alone(asked, tmp_path):
    question = replace(asked[0], video=tmp_path / "clip.mp4", system="Be brief.", text_first=True, reply="(")
    deaf = SimpleNamespace(adapter=SimpleNamespace(modalities=frozenset({"video"})))
    assert prompt_of(deaf, question).sound is None
    assert prompt_of(loaded_with(Reader()), question).sound_of_video
    assert prompt_of(loaded_with(Reader()), replace(question, audio=False)).sound is None
    own = prompt_of(loaded_with(Reader()), replace(question, audio=tmp_path / "a.wav"), Uniform(3))
    assert (own.sound, own.frames) == (tmp_path / "a.wav", Uniform(3))
    assert (own.system, own.text_first, own.reply) == ("Be brief.", True, "(")


def test_the_size_doubles_while_that_pays_and_stays_when_it_does_not():
    size = BatchSize()
    assert size.size == SMALLEST == 4
    size.worked(4, 1.0 * 4)
    assert size.size == 8
    size.worked(3, 0.1)  # not a full batch: it says nothing
    assert size.size == 8
    size.worked(8, 0.97 * 8)  # hardly faster
    assert size.size == 16
    size.worked(16, 0.96 * 16)  # and again
    assert size.size == 4
    size.worked(4, 0.001)
    assert size.size == 4


def test_one_slow_batch_does_not_end_the_search():
    size = BatchSize()
    for seconds_each in (1.0, 1.1, 0.8):
        size.worked(size.size, seconds_each * size.size)
    assert size.size == 32
    size.worked(32, 0.9 * 32)
    assert size.size == 16


def test_the_size_ends_somewhere():
    size = BatchSize()
    seconds = 1.0
    for _ in range(20):
        size.worked(size.size, seconds * size.size)
        seconds /= 2
    assert size.size == LARGEST


def test_memory_that_runs_out_halves_the_size_for_good():
    size = BatchSize(fixed=12)
    size.worked(12, 1.0)
    assert size.size == 12
    assert size.too_large(12)
    assert size.size == 6
    assert size.too_large(5)
    assert size.size == 2
    assert not BatchSize().too_large(1)


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error, ran_out):
    assert out_of_memory(error) is ran_out


@given(letters=st.lists(st.integers(0, 100_000), min_size=1, max_size=40), size=st.integers(1, 32))
def test_long_texts_are_asked_by_few_and_with_texts_of_their_length(letters: list[int], size: int) -> None:
    def ready(count: int) -> Ready:
        instance = Instance(str(count), "x" * count, "A", ("A", "B"), "letter", "c")
        return Ready(Work(instance, ()), Prompt(instance.text), Media(), None)

    alike = [ready(count) for count in sorted(letters, reverse=True)]
    count = together(alike, size)
    longest = alike[0].size[2]
    assert 1 <= count <= min(size, len(alike))
    assert count == 1 or longest <= 2000 or count * longest <= MOST_LETTERS
    assert all(2 * max(2000, one.size[2]) >= longest for one in alike[:count])
    if longest <= 2000:
        assert count == min(size, len(alike)), "short texts are of one length"
