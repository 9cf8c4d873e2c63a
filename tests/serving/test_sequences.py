"""Slots of sequences, as the scheduler starts, preempts, resumes and ends them. No engine is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnisink.errors import OmnisinkError
from omnisink.serving.sequences import Sequences
from omnisink.serving.settings import ServingSettings

CAPACITY = 4


def made() -> Sequences:
    return Sequences(ServingSettings(gamma=0.5), CAPACITY, 64, torch.device("cpu"))


def new(name: str, prompt: int, said: Any = None, computed: int = 0) -> Any:
    params = SimpleNamespace(extra_args=None if said is None else {"outro": said})
    return SimpleNamespace(req_id=name, prompt_len=prompt, num_computed_tokens=computed, sampling_params=params)


def output(
    starting: Any = (), going: Any = (), resumed: Any = (), ended: Any = (), preempted: Any = (), tokens: Any = None
) -> Any:
    scheduled = {one.req_id: one.prompt_len for one in starting} | dict.fromkeys(going, 1) | dict(resumed)
    names = [*going, *dict(resumed)]
    return SimpleNamespace(
        scheduled_new_reqs=list(starting),
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=names, resumed_req_ids=set(dict(resumed)), num_computed_tokens=[0] * len(names)
        ),
        num_scheduled_tokens=scheduled | (tokens or {}),
        finished_req_ids=set(ended),
        preempted_req_ids=set(preempted),
    )


def test_prompts_and_continuations_are_told_apart() -> None:
    ours = made()
    ours.schedule(output([new("a", 5), new("b", 1)]))
    step = ours.lay_out(["b", "a"], [0, 1, 6])
    assert [(one.start, one.length, one.prompt, one.first) for one in step.prefills] == [
        (0, 1, 1, True),
        (1, 5, 5, True),
    ]
    assert step.rows is None
    ours.schedule(output([new("c", 3)], going=["a", "b"]))
    step = ours.lay_out(["b", "a", "c"], [0, 1, 2, 5])
    assert step.rows == slice(0, 2)
    assert [one.start for one in step.prefills] == [2]
    ours.schedule(output(going=["a", "b", "c"]))
    first = ours.lay_out(["b", "a", "c"], [0, 1, 2, 3])
    assert first.slots is not None
    assert len(first.slots.unique()) == 3
    ours.schedule(output(going=["a", "b", "c"]))
    assert ours.lay_out(["b", "a", "c"], [0, 1, 2, 3]).key == first.key
    ours.schedule(output(going=["a", "c"], ended=["b"]))
    assert ours.lay_out(["c", "a"], [0, 1, 2]).key != first.key


def test_scattered_continuations_are_named_one_by_one() -> None:
    ours = made()
    ours.schedule(output([new("a", 2), new("b", 2)]))
    ours.schedule(output([new("c", 4)], going=["a", "b"]))
    step = ours.lay_out(["a", "c", "b"], [0, 1, 5, 6])
    assert isinstance(step.rows, torch.Tensor)
    assert step.rows.tolist() == [0, 5]


def test_requests_without_the_method_take_no_slot() -> None:
    ours = made()
    assert len(ours.schedule(output([new("a", 2, False), new("b", 2, {"gamma": 0}), new("c", 2)]))) == 1
    step = ours.lay_out(["a", "b", "c"], [0, 2, 4, 6])
    assert [one.start for one in step.prefills] == [4]
    ours.schedule(output(going=["a", "b", "c"]))
    assert ours.lay_out(["a", "b", "c"], [0, 1, 2, 3]).rows == slice(2, 3)
    assert ours.slots_taken == 1


def test_generated_tokens_have_the_strength_of_their_request() -> None:
    ours = made()
    ours.schedule(output([new("a", 2), new("b", 2, {"gamma": -2}), new("c", 2, {"decode": False})]))
    ours.schedule(output(going=["a", "b", "c"]))
    step = ours.lay_out(["a", "b", "c"], [0, 1, 2, 3])
    assert step.slots is not None
    assert step.rows == slice(0, 2)  # The third request leaves them as they are.
    assert ours.gammas[step.slots].tolist() == [0.5, -2.0]
    assert ours.gammas[step.by_token].tolist() == [0.5, -2.0, 0.0]
    assert ours.gammas[ours.null_slot] == 0


def test_every_token_of_a_pass_has_the_slot_it_is_rotated_by() -> None:
    ours = made()
    ours.schedule(output([new("a", 2), new("b", 3, {"decode": False}), new("c", 2, False)]))
    step = ours.lay_out(["a", "b", "c"], [0, 2, 5, 7])
    a, b = (one.slot for one in step.prefills)
    assert (step.by_token.tolist(), step.turns) == ([a] * 2 + [b] * 3 + [ours.null_slot] * 2, True)
    ours.schedule(output(going=["a", "c"], preempted=["b"]))
    assert ours.lay_out(["a", "c"], [0, 1, 2]).by_token.tolist() == [a, ours.null_slot]
    ours.schedule(output(going=["a"], resumed={"b": 5}))
    step = ours.lay_out(["a", "b"], [0, 1, 6])
    (again,) = step.prefills
    # What it had generated was not rotated before either.
    assert step.by_token.tolist() == [a, *[again.slot] * 3, *[ours.null_slot] * 2]
    ours.schedule(output(going=["c"]))
    assert not ours.lay_out(["c"], [0, 1]).turns


def test_a_preempted_sequence_is_prefilled_with_what_it_had_generated() -> None:
    ours = made()
    ours.schedule(output([new("a", 5), new("b", 2)]))
    ours.schedule(output(going=["a"], preempted=["b"]))
    assert (ours.count, ours.slots_taken) == (2, 1)
    ours.schedule(output(going=["a"], resumed={"b": 4}))
    (again,) = ours.lay_out(["a", "b"], [0, 1, 5]).prefills
    assert (again.start, again.length, again.prompt, again.first) == (1, 4, 2, False)
    # The other runner names it as new.
    ours.schedule(output(going=["a"], preempted=["b"]))
    ours.schedule(output([new("b", 2)], going=["a"], tokens={"b": 6}))
    (again,) = ours.lay_out(["a", "b"], [0, 1, 7]).prefills
    assert (again.length, again.prompt, again.first) == (6, 2, False)


@pytest.mark.parametrize(
    ("starting", "tokens"), [(new("a", 9), {"a": 4}), (new("a", 9, computed=4), {"a": 5}), (new("a", 9), {"a": 0})]
)
def test_a_prompt_in_parts_is_an_error(starting: Any, tokens: dict[str, int]) -> None:
    with pytest.raises(OmnisinkError, match="has to be prefilled whole"):
        made().schedule(output([starting], tokens=tokens))


def test_several_tokens_at_a_time_and_growing_prompts_are_errors() -> None:
    ours = made()
    ours.schedule(output([new("a", 5)]))
    with pytest.raises(OmnisinkError, match="3 tokens continue it in one step"):
        ours.schedule(output(going=["a"], tokens={"a": 3}))
    with pytest.raises(OmnisinkError, match="started again while it runs"):
        ours.schedule(output([new("a", 7)]))


@given(st.lists(st.sampled_from(["start", "off", "end", "preempt", "resume", "step"]), max_size=60), st.randoms())
def test_slots_are_never_shared_and_never_lost(events: list[str], random: Any) -> None:
    ours, running, waiting, count = made(), {}, {}, 0
    for event in events:
        if event in ("start", "off") and len(running) < CAPACITY:
            count += 1
            name = f"r{count}"
            running[name] = event == "start"
            ours.schedule(output([new(name, 3, None if running[name] else False)]))
        elif event == "end" and (running or waiting):
            name = random.choice([*running, *waiting])
            running.pop(name, None)
            waiting.pop(name, None)
            ours.schedule(output(ended=[name]))
        elif event == "preempt" and running:
            name = random.choice([*running])
            waiting[name] = running.pop(name)
            ours.schedule(output(preempted=[name]))
        elif event == "resume" and waiting and len(running) < CAPACITY:
            name = random.choice([*waiting])
            running[name] = waiting.pop(name)
            ours.schedule(output(resumed={name: 4}))
        else:
            ours.schedule(output(going=list(running)))
        order = random.sample(sorted(running), len(running))
        ours.schedule(output(going=order))
        step = ours.lay_out(order, list(range(len(order) + 1)))
        slots = [] if step.slots is None else step.slots.tolist()
        assert len(slots) == len(set(slots)) == sum(running.values()) == ours.slots_taken
        assert ours.count == len(running) + len(waiting)
