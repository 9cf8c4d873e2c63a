"""Answers with planted margins, for searches whose best setting is known."""

from __future__ import annotations

import dataclasses
import hashlib
import math

from omnisink.evaluation.running.asking import Reply
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tuning.scoring import name_of


def planted_questions() -> list[Instance]:
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
