"""An attention layer on a CPU in float32: the same method, with operators that cost less to call.

Decoding on a CPU takes some tens of milliseconds a token, and PyTorch's operators some microseconds each: at 16 layers
they came to a twentieth. Other dtypes, which Numba does not know, and accelerators keep to `OutRoLayer`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnisink.serving.kernels import find_sinks_kernel, point_to_sinks, rotate
from omnisink.serving.layer import OutRoLayer
from omnisink.serving.sequences import Step


class HostLayer(OutRoLayer):
    """One attention layer; see `OutRoLayer`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._thresholds = np.float32(self._settings.min_activation), np.float32(self._settings.median_ratio)
        self._tau = np.float32(self._settings.tau)
        self._vectors = self._directions.numpy()
        self._strengths = self._gammas.numpy()
        self._has_vectors = False

    def observe(self, step: Step, residual: Tensor) -> None:
        """Find the sinks of the prompts that run."""
        rows = residual.contiguous().numpy()
        for one in step.prefills:
            one.sinks = None
            if self.detects:
                found = np.zeros(one.prompt, bool)
                if find_sinks_kernel(rows[one.start : one.start + one.prompt], *self._thresholds, found):
                    one.sinks = torch.from_numpy(found)

    def act(self, step: Step, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        """Change the head outputs of a pass in place."""
        for one in step.prefills:
            if one.sinks is None:
                continue
            one.add(one.sinks)
            prompt = slice(one.start, one.start + one.prompt)
            if self.relaxes and one.settings.relax:
                heads = value[prompt].transpose(0, 1)[None]
                self._relax(one, one.sinks, query[prompt], key[prompt], heads, output[prompt])
            if one.settings.gamma != 0:
                found = one.sinks.numpy()
                point_to_sinks(value[prompt].numpy(), found, self._vectors[one.slot])
                self._has_vectors = True
                step.by_token[prompt][found] = self._null_slot
        if step.turns and self._has_vectors:
            # Where a sequence has no sink, its vector is zero, and nothing is turned.
            rotate(output.numpy()[: len(step.by_token)], step.by_token, self._vectors, self._strengths, self._tau)
