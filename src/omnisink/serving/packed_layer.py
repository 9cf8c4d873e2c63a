"""An attention layer where kernels run: prompts and generated tokens of a step together, in a few launches."""

from __future__ import annotations

from torch import Tensor

from omnisink.maths.packed import rotate_packed
from omnisink.serving.layer import OutRoLayer
from omnisink.serving.sequences import Step


class PackedLayer(OutRoLayer):
    """One attention layer; see `OutRoLayer`."""

    def observe(self, step: Step, residual: Tensor) -> None:
        """Find the sinks of the prompts that run."""
        if self.detects and step.packed is not None:
            step.packed.find_sinks(
                self.number,
                residual,
                min_activation=self._settings.min_activation,
                median_ratio=self._settings.median_ratio,
            )

    def act(self, step: Step, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        """Change the head outputs of a pass in place."""
        if not self.detects:
            return
        prompts = step.packed
        if prompts is not None:
            if self.relaxes:
                prompts.relax(self.number, output, query, key, value, scaling=self._scaling)
            prompts.freeze_and_point(self.number, value, self._directions)
        if step.token_slots is not None:
            rotate_packed(
                output,
                self._directions,
                self._gammas,
                step.token_slots,
                tau=self._settings.tau,
                frozen=None if prompts is None else prompts.frozen,
            )
