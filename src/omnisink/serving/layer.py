"""OutRo at one attention layer of a model in vLLM: find sinks, relax their rows, rotate the other tokens.

The same equations as on transformers, of `omnisink.maths`; here a batch is a list of sequences one after another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnisink.maths.host import is_eager_cpu
from omnisink.maths.magnitude import token_magnitude
from omnisink.maths.relaxation import attend_to_all, choose_rows, replace_rows
from omnisink.maths.rotation import rotate, sink_direction
from omnisink.maths.sinks import massive_activation_sinks
from omnisink.serving.counters import Counters
from omnisink.serving.sequences import Prefill, Sequences, Step


class OutRoLayer:
    """One attention layer.

    Parameters
    ----------
    number, depth : int
        Number of the layer, and of layers.
    scaling : float
        The attention's softmax scale.
    directions : Tensor
        (slots, K, D) float32, the unit vectors of the sink values of every sequence; zero where it has no sink here.
        K are the key/value heads of this rank.
    sequences : Sequences
        The worker's.
    counters : Tally
        The counters.
    """

    def __init__(
        self, number: int, depth: int, scaling: float, directions: Tensor, sequences: Sequences, counters: Counters
    ) -> None:
        settings = sequences.settings
        self.number = number
        self.detects = settings.detects(number, depth)
        self.relaxes = settings.relaxes(number, depth)
        self._settings = settings
        self._scaling = scaling
        self._directions = directions
        self._gammas = sequences.gammas
        self._null_slot = sequences.null_slot
        self._tally = counters
        self._key = -1
        self._turning: tuple[Tensor, Tensor | float] | None = None

    def observe(self, step: Step, residual: Tensor) -> None:
        """Find the sinks of the prompts that run.

        Parameters
        ----------
        step : Step
            The pass.
        residual : Tensor
            Residual stream entering the layer, (tokens, d).
        """
        for one in step.prefills:
            one.sinks = None
        if not (self.detects and step.prefills):
            return
        magnitude = token_magnitude(residual)
        looks = is_eager_cpu(residual)
        large = (magnitude >= self._settings.min_activation).nonzero().flatten().tolist() if looks else []
        for one in step.prefills:
            prompt = slice(one.start, one.start + one.prompt)
            if looks and not any(prompt.start <= token < prompt.stop for token in large):
                continue
            sinks = massive_activation_sinks(
                residual[None, prompt],
                min_activation=self._settings.min_activation,
                median_ratio=self._settings.median_ratio,
                magnitude=magnitude[None, prompt],
            )[0]
            if not looks or bool(sinks.any()):
                one.sinks = sinks

    def act(self, step: Step, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        """Change the head outputs of a pass in place.

        Parameters
        ----------
        step : Step
            The pass.
        query : Tensor
            (tokens, H, D), after position encoding.
        key, value : Tensor
            (tokens, K, D).
        output : Tensor
            (tokens, H, D), the attention's own head outputs.
        """
        for one in step.prefills:
            if one.sinks is not None:
                self._prefill(one, one.sinks, query, key, value, output)
        if step.slots is not None and step.rows is not None:
            self._continue(step.rows, step.slots, step.key, output)

    def _prefill(self, one: Prefill, sinks: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        frozen = one.add(sinks)
        prompt = slice(one.start, one.start + one.prompt)
        heads = value[prompt].transpose(0, 1)[None]
        if self.relaxes and one.settings.relax:
            self._relax(one, sinks, query[prompt], key[prompt], heads, output[prompt])
        if one.settings.gamma == 0:
            return
        direction = sink_direction(heads, sinks[None], heads.shape[1])
        self._directions[one.slot] = direction[0]
        if one.length > one.prompt:
            # A preempted sequence brings what it had generated: rotated then, rotated now.
            rest = torch.full((one.length - one.prompt,), not one.settings.decode, device=frozen.device)
            frozen = torch.cat([frozen, rest])
        groups = output.shape[1] // direction.shape[1]
        rotate(
            output[one.start : one.start + one.length][None],
            direction.repeat_interleave(groups, dim=1),
            gamma=one.settings.gamma,
            tau=self._settings.tau,
            frozen=frozen[None],
        )

    def _relax(self, one: Prefill, sinks: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        """Replace the rows of sinks that have not been relaxed yet; `value` is (1, K, prompt, D)."""
        fresh = sinks if one.relaxed is None else sinks & ~one.relaxed
        count = fresh.sum()
        if is_eager_cpu(fresh):
            capacity = int(count)
            if capacity == 0:
                return
        else:
            capacity = min(one.prompt, self._settings.max_relaxed)
            self._tally.rows_dropped((count - capacity).clamp(min=0))
        index, valid = choose_rows(fresh[None], capacity)
        rows = attend_to_all(
            query[index[0]].transpose(0, 1)[None], key.transpose(0, 1)[None], value, scaling=self._scaling
        )
        replace_rows(output[None], rows, index, valid)
        one.relaxed = fresh if one.relaxed is None else one.relaxed | fresh
        if one.first:
            self._tally.rows_relaxed(count)

    def _continue(self, rows: slice | Tensor, slots: Tensor, key: int, output: Tensor) -> None:
        """Rotate tokens that continue sequences."""
        if isinstance(rows, slice) and rows.stop > len(output):
            rows, slots = slice(0, len(output)), slots[: len(output)]
        if is_eager_cpu(output):
            # Sequences come and go seldom; in between the same vectors are used again, or nothing is to be done.
            if key != self._key:
                self._key, self._turning = key, _precompute(*self._gather(slots, output.shape[1]))
            if self._turning is None:
                return
            direction, gamma = self._turning
        else:
            direction, gamma = self._gather(slots, output.shape[1])
        tokens = output[rows]
        rotate(tokens[:, None], direction, gamma=gamma, tau=self._settings.tau)
        if isinstance(rows, Tensor):
            output[rows] = tokens  # Picked rows are a copy; a slice is the output itself.

    def _gather(self, slots: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Return the sequences' unit vectors for every query head, (rows, H, D), and their strengths, (rows,)."""
        direction = self._directions.index_select(0, slots)
        return direction.repeat_interleave(heads // direction.shape[1], dim=1), self._gammas.index_select(0, slots)


def _precompute(direction: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor | float] | None:
    """Simplify what is going to be used many times: None where nothing turns, one number where it serves all."""
    direction = direction * (gamma != 0)[:, None, None]
    if not bool(direction.any()):
        return None
    strengths = set(gamma.tolist()) - {0.0}
    return direction, strengths.pop() if len(strengths) == 1 else gamma
