"""The prompts of a serving engine's step, one after another in one tensor, and the kernels on all of them together.

Only where kernels run: see `omnisink.maths.choice.kernels_run_on`. What each operator computes is said in
`omnisink.maths.sinks`, `rotation` and `relaxation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class PackedPrompts:
    """The prompts of one step, and what its layers find in them.

    Parameters
    ----------
    spans : sequence of (int, int)
        First token of each prompt, and the one after its last.
    slots : sequence of int
        Slots of the sequences' vectors.
    relaxes : sequence of bool
        Whether rows of each are relaxed.
    tokens : int
        Tokens of the step.
    layers : int
        Layers of the decoder.
    device : torch.device
        Device of the tensors.
    """

    def __init__(
        self,
        spans: Sequence[tuple[int, int]],
        slots: Sequence[int],
        relaxes: Sequence[bool],
        tokens: int,
        layers: int,
        device: torch.device,
    ) -> None:
        from omnisink.kernels.layout import Layout
        from omnisink.kernels.workspace import Workspace

        number = len(spans)
        host = torch.full((2 * tokens + 4 * number,), -1, dtype=torch.int32, pin_memory=device.type == "cuda")
        stamps, sequence, first, stop, sizes, where = host.split([tokens, tokens, number, number, number, number])
        stamps.zero_()
        for i, (begin, end) in enumerate(spans):
            sequence[begin:end] = i
            first[i], stop[i], sizes[i], where[i] = begin, end, end - begin, slots[i]
            if not relaxes[i]:
                stamps[begin:end] = -1  # As if their rows had been relaxed already.
        on_device = host.to(device, non_blocking=True)
        stamps, sequence, first, stop, sizes, self._slots = on_device.split([tokens, tokens, *[number] * 4])
        self.stamps = stamps[None]
        self.frozen = torch.zeros(1, tokens, dtype=torch.bool, device=device)
        longest = max(end - begin for begin, end in spans)
        self._tokens = tokens
        self._layout = Layout(tokens, tokens, longest, sequence, first, stop, sizes)
        self._workspace: Any = Workspace.of(self._layout, layers)

    @property
    def marks(self) -> Tensor:
        """(layers, tokens) bool, the sinks of the layers that have run."""
        return self._workspace.marks.view(torch.bool)

    def find_sinks(self, layer: int, residual: Tensor, *, min_activation: float, median_ratio: float) -> None:
        """Find the sinks of all prompts in the residual stream (tokens or more, d) that enters a layer."""
        from omnisink.kernels.detection import find_sinks

        find_sinks(residual[None], self._workspace, layer, min_activation=min_activation, median_ratio=median_ratio)

    def relax(self, layer: int, output: Tensor, query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> None:
        """Relax the rows of a layer's sinks in `output`, (tokens, H, D); in the others too, tokens come first."""
        from omnisink.kernels.relaxation import relax_in_place

        query, key, value = (x[None].transpose(1, 2) for x in (query, key, value))
        relax_in_place(
            output[None],
            query,
            key,
            value,
            self._workspace.sinks[layer],
            self.stamps,
            self._layout,
            stamp=layer + 1,
            scaling=scaling,
        )

    def freeze_and_point(self, layer: int, value: Tensor, directions: Tensor) -> None:
        """Write the unit vectors of a layer's sink values (tokens, K, D) to their slots of (slots, K, D)."""
        from omnisink.kernels.direction import write_direction

        write_direction(
            value[None].transpose(1, 2),
            self._workspace.sinks[layer],
            self._layout,
            directions,
            slots=self._slots,
            frozen=self.frozen,
        )


def rotate_packed(
    output: Tensor, directions: Tensor, gammas: Tensor, slots: Tensor, *, tau: float, frozen: Tensor | None = None
) -> None:
    """Rotate tokens of any sequences in place, only by kernels.

    Parameters
    ----------
    output : Tensor
        Head outputs, (tokens or more, H, D).
    directions : Tensor
        (slots, K, D) float32; zero where a sequence has no sink.
    gammas : Tensor
        (slots,) float32.
    slots : Tensor
        (tokens,) int32 or int64, to which slot each token belongs.
    tau : float
        Temperature of the gate.
    frozen : Tensor, optional
        (1, tokens) bool, tokens to leave as they are.
    """
    from omnisink.kernels.rotation import rotate_in_place

    tokens = output[None, : len(slots)]
    rotate_in_place(tokens, directions, gamma=gammas, tau=tau, slots=slots[: tokens.shape[1]], frozen=frozen)
