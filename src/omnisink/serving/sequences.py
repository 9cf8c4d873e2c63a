"""The sequences that are alive in a worker, the state of each, and the work of each in a step.

The scheduler names every request that starts, is started again after a preemption, is preempted, or has ended. By
these events and the request's id, a sequence gets a slot for its sink values and gives it back.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.maths.choice import kernels_run_on
from omnisink.maths.packed import PackedPrompts
from omnisink.serving.settings import KEY, RequestSettings, ServingSettings, read_request


@dataclass
class Prefill:
    """A sequence whose prompt runs in this step, and what its layers have found so far.

    Attributes
    ----------
    slot : int
        Slot of its sink values.
    settings : RequestSettings
        Settings of the request.
    prompt : int
        Tokens of its prompt.
    first : bool
        False where it is a preempted sequence that is prefilled again, with what it had generated.
    start, length : int
        Its tokens in the step: the prompt and, after a preemption, the generated tokens.
    sinks, ever, relaxed : Tensor or None
        (prompt,) bool: sinks of the layer that runs; those of this and all earlier layers; rows relaxed already.
    found : list of Tensor
        The sinks of every layer that has run, as far as it may have some.
    packed : PackedPrompts or None
        Where kernels run, what is found in all prompts of the step, in place of the masks above.
    """

    slot: int
    settings: RequestSettings
    prompt: int
    first: bool
    start: int = 0
    length: int = 0
    sinks: Tensor | None = None
    ever: Tensor | None = None
    relaxed: Tensor | None = None
    found: list[Tensor] = field(default_factory=list)
    packed: PackedPrompts | None = None

    def add(self, sinks: Tensor) -> Tensor:
        """Take up the sinks of the layer that runs; return those of all layers so far, (prompt,) bool."""
        self.found.append(sinks)
        self.ever = sinks if self.ever is None else self.ever | sinks
        return self.ever


@dataclass
class Step:
    """The work of one forward pass.

    Attributes
    ----------
    prefills : list of Prefill
        Sequences whose prompts run.
    rows : slice or Tensor or None
        Tokens of the pass that continue sequences; None where there are none to rotate.
    slots : Tensor or None
        (rows,) int64, the slot of each.
    key : int
        The same for as long as `slots` is, and no sink value in them has changed.
    by_token : ndarray of int64
        On a CPU, the slot of every token that is to be rotated; that of nobody where it is not.
    turns : bool
        Whether there is one in `by_token`.
    token_slots : Tensor or None
        Where kernels run, (tokens,), the slot of every token that is to be rotated; that of nobody where it is not.
    packed : PackedPrompts or None
        Where kernels run, the prompts of this pass.
    """

    prefills: list[Prefill] = field(default_factory=list)
    rows: slice | Tensor | None = None
    slots: Tensor | None = None
    key: int = 0
    by_token: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    turns: bool = False
    token_slots: Tensor | None = None
    packed: PackedPrompts | None = None


@dataclass
class _Alive:
    """A sequence that has been scheduled and has not ended. Without a slot it is preempted."""

    prompt: int
    settings: RequestSettings
    slot: int | None = None
    ran: bool = False


class Sequences:
    """The sequences of one worker.

    Parameters
    ----------
    settings : ServingSettings
        The server's.
    capacity : int
        Sequences that can run at a time.
    tokens : int
        Tokens of a pass at most.
    device : torch.device
        Device of the model.
    depth : int
        Layers of the decoder; needed where kernels run.

    Attributes
    ----------
    null_slot : int
        A slot that never has a sink value: for padding, and for requests for which the method is off.
    gammas : Tensor
        (slots,) float32, the strength of each.
    """

    def __init__(
        self, settings: ServingSettings, capacity: int, tokens: int, device: torch.device, depth: int = 0
    ) -> None:
        self.settings = settings
        self.null_slot = capacity
        self.gammas = torch.zeros(capacity + 1, device=device)
        self._depth = depth
        self._packs = kernels_run_on(self.gammas)
        self._free = list(range(capacity - 1, -1, -1))
        self._alive: dict[str, _Alive] = {}
        self._starting: dict[str, Prefill] = {}
        self._fixed = torch.full((tokens,), capacity, dtype=torch.long, device=device)
        self._layout: tuple[int, ...] = ()
        self._key = 0
        self._rows: slice | Tensor | None = None
        self._slots: Tensor | None = None

    @property
    def count(self) -> int:
        """Sequences that have been scheduled and have not ended."""
        return len(self._alive)

    @property
    def slots_taken(self) -> int:
        """Slots in use."""
        return self.null_slot - len(self._free)

    @property
    def starting(self) -> list[Prefill]:
        """Sequences whose prompts run in the pass that begins, those without the method too."""
        return list(self._starting.values())

    def schedule(self, output: Any) -> list[int]:
        """Take over what the scheduler has decided for the next pass.

        Parameters
        ----------
        output : SchedulerOutput
            The scheduler's.

        Returns
        -------
        list of int
            Slots that begin anew, whose old sink values must be cleared.

        Raises
        ------
        OmnisinkError
            If a prompt is not prefilled whole: its result would not be the method's.
        """
        for name in output.finished_req_ids:
            if (ended := self._alive.pop(name, None)) is not None:
                self._release(ended)
        for name in output.preempted_req_ids or ():
            if name in self._alive:
                self._release(self._alive[name])
        self._starting = {}
        scheduled = output.num_scheduled_tokens
        for new in output.scheduled_new_reqs:
            known = self._alive.get(new.req_id)
            if known is None:
                extra = new.sampling_params.extra_args if new.sampling_params is not None else None
                settings = read_request((extra or {}).get(KEY), self.settings)
                self._alive[new.req_id] = _Alive(new.prompt_len, settings)
            self._start(new.req_id, new.num_computed_tokens, scheduled[new.req_id])
        again = output.scheduled_cached_reqs
        for name, computed in zip(again.req_ids, again.num_computed_tokens, strict=True):
            if name in again.resumed_req_ids:
                self._start(name, computed, scheduled[name])
            elif (tokens := scheduled[name]) != 1:
                raise OmnisinkError(f"request {name}: {tokens} tokens continue it in one step, which is not supported")
        return [one.slot for one in self._starting.values() if one.slot != self.null_slot]

    def lay_out(self, names: Listing[str], starts: list[int]) -> Step:
        """Tell what a pass has to do, from the order in which its sequences lie in it.

        Parameters
        ----------
        names : sequence of str
            Ids of the requests, in the order of the pass; padding after them is not named.
        starts : list of int
            First token of each sequence, and the end of the last.

        Returns
        -------
        Step
            The work of the pass.
        """
        step = Step()
        tokens: list[int] = []
        slots: list[int] = []
        for i, name in enumerate(names):
            starting = self._starting.get(name)
            if starting is not None:
                starting.start, starting.length = starts[i], starts[i + 1] - starts[i]
                if starting.slot != self.null_slot:
                    step.prefills.append(starting)
            else:
                one = self._alive[name]
                if one.slot is not None and one.slot != self.null_slot and one.settings.decode:
                    tokens.append(starts[i])
                    slots.append(one.slot)
        self._place(step, tokens, slots)
        if self._packs and step.prefills:
            self._pack(step, starts[len(names)], tokens, slots)
        if self.gammas.device.type == "cpu":
            step.by_token = np.full(starts[len(names)], self.null_slot)
            step.by_token[tokens] = slots
            for starting in step.prefills:
                turned = starting.length if starting.settings.decode else starting.prompt
                step.by_token[starting.start : starting.start + turned] = starting.slot
            step.turns = bool(tokens or step.prefills)
        return step

    def _pack(self, step: Step, total: int, tokens: list[int], slots: list[int]) -> None:
        """Lay out a pass with prompts for kernels: every token gets a slot, that of nobody to be left as it is."""
        by_token = np.full(total, self.null_slot, np.int32)
        by_token[tokens] = slots
        for one in step.prefills:
            turned = one.length if one.settings.decode else one.prompt
            by_token[one.start : one.start + turned] = one.slot
        device = self.gammas.device
        pinned = torch.from_numpy(by_token)
        pinned = pinned.pin_memory() if device.type == "cuda" else pinned
        step.token_slots = pinned.to(device, non_blocking=True)
        step.packed = PackedPrompts(
            [(one.start, one.start + one.prompt) for one in step.prefills],
            [one.slot for one in step.prefills],
            [one.settings.relax for one in step.prefills],
            total,
            self._depth,
            device,
        )
        for one in step.prefills:
            one.packed = step.packed

    def idle_step(self) -> Step:
        """Return a step in which nothing is done but what a captured graph must hold: every row has no sink value."""
        if self.gammas.device.type == "cpu":
            return Step()
        self._fixed.fill_(self.null_slot)
        return Step(rows=slice(0, len(self._fixed)), slots=self._fixed, token_slots=self._fixed)

    def _place(self, step: Step, tokens: list[int], slots: list[int]) -> None:
        layout = (*tokens, *slots)
        device = self.gammas.device
        if (self._packs or device.type != "cpu") and not step.prefills:
            # A captured graph reads these addresses, at every row it was captured with.
            self._fixed.fill_(self.null_slot)
            if tokens:
                pinned = torch.tensor([tokens, slots], pin_memory=device.type == "cuda")
                where = pinned.to(device, non_blocking=True)
                self._fixed.index_copy_(0, where[0], where[1])
            step.rows, step.slots = slice(0, len(self._fixed)), self._fixed
            step.token_slots = self._fixed
            return
        if layout != self._layout or step.prefills:
            self._layout, self._key = layout, self._key + 1
            self._rows = self._slots = None
            if tokens:
                together = tokens[-1] - tokens[0] + 1 == len(tokens)
                self._rows = slice(tokens[0], tokens[-1] + 1) if together else torch.tensor(tokens, device=device)
                self._slots = torch.tensor(slots, device=device)
        step.rows, step.slots, step.key = self._rows, self._slots, self._key

    def _start(self, name: str, computed: int, scheduled: int) -> None:
        one = self._alive[name]
        if one.slot is not None:
            # The runner of GPUs names a resumed request as new; one that was neither preempted nor ended is another
            # kind of request, whose prompt grows while it runs.
            raise OmnisinkError(f"request {name} is started again while it runs, which is not supported")
        if computed or scheduled < one.prompt:
            raise OmnisinkError(
                f"request {name}: {scheduled} of {one.prompt} prompt tokens run in a step, after {computed}; "
                "a prompt has to be prefilled whole"
            )
        one.slot = self._take() if one.settings.acts else self.null_slot
        self._starting[name] = Prefill(one.slot, one.settings, one.prompt, first=not one.ran)
        one.ran = True
        if one.slot != self.null_slot:
            self.gammas[one.slot] = one.settings.gamma

    def _take(self) -> int:
        if not self._free:
            raise OmnisinkError(f"more than {self.null_slot} sequences run at a time, which vLLM had ruled out")
        return self._free.pop()

    def _release(self, one: _Alive) -> None:
        if one.slot is not None and one.slot != self.null_slot:
            self._free.append(one.slot)
        one.slot = None
