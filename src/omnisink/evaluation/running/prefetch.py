"""Reading media ahead of the model, each file once, and sorting what is ready so that a batch is of one length."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from omnisink.errors import OmnisinkError, reason
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.prompts import prompt_of
from omnisink.media import FrameChoice
from omnisink.models.loaded import Loaded
from omnisink.questions.prompt import Media, Prompt

#: Letters of a batch of texts, each as long as its longest. A batch with padding has a mask of the square of its
#: length for every text, so that long ones are asked by few.
MOST_LETTERS = 2**16
#: Texts that are shorter are as good as equally long.
SHORT = 2000


@dataclass(frozen=True)
class Work:
    """One question, and the methods under which it has not been answered yet.

    Attributes
    ----------
    instance : Instance
        The question.
    methods : tuple of (str, int)
        Names, each with the number of the attempt.
    """

    instance: Instance
    methods: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Ready:
    """A question whose media has been read, or could not be.

    Attributes
    ----------
    work : Work
        The question.
    prompt : Prompt
        It, as the model's adapter takes it.
    media : Media or None
        What was read; None where it failed.
    error : str or None
        Why it failed.
    """

    work: Work
    prompt: Prompt
    media: Media | None
    error: str | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the questions of a batch have in common."""
        return (*self.prompt.media, self.work.instance.max_new_tokens, self.work.methods)

    @property
    def size(self) -> tuple[int, int, int]:
        """What the length of the prompt grows with: pixels, samples, letters."""
        media = self.media or Media()
        pixels = media.frames.size if media.video is not None else 0
        pixels += media.image.size if media.image is not None else 0
        return pixels, len(media.samples) if media.sound is not None else 0, len(self.prompt.text)


def windows(
    loaded: Loaded, works: Sequence[Work], *, size: int, threads: int, frames: FrameChoice | None = None
) -> Iterator[list[Ready]]:
    """Yield the questions in runs of `size`, whose media is read while the run before is with the model.

    Neighbours about the same files share what was read of them.

    Parameters
    ----------
    loaded : Loaded
        The model, whose adapter reads.
    works : sequence of Work
        The questions, in order.
    size : int
        Questions of a run. No more than twice as many are held in memory.
    threads : int
        Files that are read at a time.
    frames : FrameChoice, optional
        Which frames; None is the family's own rule.

    Yields
    ------
    list of Ready
        In the order of `works`.
    """
    prompts = [prompt_of(loaded, work.instance, frames) for work in works]
    shared = [list(group) for _, group in groupby(range(len(works)), key=lambda i: _files(prompts[i]))]
    waiting: deque[tuple[list[int], Future[Media | str]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="omnisink-read")
    with closing(_Closing(pool)):
        window: list[Ready] = []
        ahead, upcoming = 0, iter(shared)
        while True:
            while ahead < size and (group := next(upcoming, None)) is not None:
                waiting.append((group, pool.submit(_read, loaded, prompts[group[0]])))
                ahead += len(group)
            if not waiting:
                break
            group, future = waiting.popleft()
            ahead -= len(group)
            got = future.result()
            media, error = (None, got) if isinstance(got, str) else (got, None)
            window += [Ready(works[i], prompts[i], media, error) for i in group]
            if len(window) >= size:
                yield window
                window = []
        if window:
            yield window


class _Closing:
    """A pool that forgets what it has not begun: an error of the model must not wait for files nobody wants."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _files(prompt: Prompt) -> tuple[Any, ...]:
    return prompt.video, prompt.image, prompt.sound


def _read(loaded: Loaded, prompt: Prompt) -> Media | str:
    """Read the files of one question; a file that cannot be read is a result too."""
    try:
        return loaded.adapter.read(loaded, [prompt])[0]
    except (OmnisinkError, OSError, ValueError, MemoryError) as error:
        return reason(error)


def batches(window: Sequence[Ready]) -> Iterator[list[Ready]]:
    """Yield the readable questions of a window in lists of one kind, the longest first.

    The longest come first so that what does not fit in memory shows at once.
    """
    readable = [ready for ready in window if ready.error is None]
    kinds: dict[tuple[Any, ...], list[Ready]] = {}
    for ready in readable:
        kinds.setdefault(ready.kind, []).append(ready)
    for alike in kinds.values():
        yield sorted(alike, key=lambda ready: ready.size, reverse=True)


def together(alike: Sequence[Ready], size: int) -> int:
    """Return how many questions of a list make the next batch.

    Parameters
    ----------
    alike : sequence of Ready
        Questions of one kind, the longest first; at least one.
    size : int
        The most there may be.

    Returns
    -------
    int
        At least 1. Of texts alone no more than `MOST_LETTERS` allow, and none that is shorter than half of the
        longest, which would be padding for the most part.
    """
    pixels, samples, longest = alike[0].size
    if pixels or samples or longest <= SHORT:
        return min(size, len(alike))
    most = min(size, len(alike), max(1, MOST_LETTERS // longest))
    return next((i for i in range(1, most) if max(SHORT, alike[i].size[2]) * 2 < longest), most)
