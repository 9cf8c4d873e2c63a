"""The work of `omnisink.maths.prompts` by kernels, which fill in tensors that are made once for all layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from omnisink.kernels.workspace import Workspace


class KernelPrompts:
    """What the kernels share of one prefill, device by device.

    Parameters
    ----------
    shape : tuple of int
        B and S.
    token_mask : Tensor or None
        (B, S) bool, False at padding.
    layers : int
        Layers of the decoder.
    """

    def __init__(self, shape: tuple[int, int], token_mask: Tensor | None, layers: int) -> None:
        self._shape, self._token_mask, self._layers = shape, token_mask, layers
        self._workspaces: dict[torch.device, Workspace] = {}

    def find_sinks(
        self, layer: int, hidden: Tensor, *, min_activation: float, median_ratio: float
    ) -> tuple[Tensor, Tensor]:
        """Find the sinks of a layer; see `omnisink.maths.prompts.Prompts.find_sinks`."""
        from omnisink.kernels.detection import find_sinks

        workspace = self._on(hidden.device)
        find_sinks(hidden, workspace, layer, min_activation=min_activation, median_ratio=median_ratio)
        return workspace.sinks[layer], workspace.magnitudes[layer]

    def relax(
        self,
        layer: int,
        sinks: Tensor,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        stamps: Tensor,
        **options: Any,
    ) -> None:
        """Relax the sinks' rows of `output` in place, and write to `stamps` (B, S) where that was done."""
        from omnisink.kernels.relaxation import relax_in_place

        layout = self._on(output.device).layout
        relax_in_place(output, query, key, value, sinks, stamps, layout, stamp=layer + 1, **options)

    def freeze_and_point(
        self, sinks: Tensor, value: Tensor, heads: int, out: Tensor | None, frozen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the direction (B, H, D'), in `out` if that is given, and the frozen tokens with the layer's sinks."""
        from omnisink.kernels.direction import write_direction

        if out is None:
            out = value.new_empty((len(value), heads, value.shape[3]), dtype=torch.float32)
        if frozen is None:
            frozen = torch.zeros_like(sinks)
        elif frozen.device != value.device:
            frozen = frozen.to(value.device)
        write_direction(value, sinks, self._on(value.device).layout, out, frozen=frozen)
        return out, frozen

    def rotate(self, output: Tensor, direction: Tensor, *, gamma: float, tau: float, frozen: Tensor | None) -> None:
        """Rotate all tokens but the frozen ones, in place."""
        from omnisink.kernels.rotation import rotate_in_place

        prepared = self._on(output.device).layout.prepared
        rotate_in_place(output, direction, gamma=gamma, tau=tau, frozen=frozen, prepared=prepared)

    def _on(self, device: torch.device) -> Workspace:
        found = self._workspaces.get(device)
        if found is None:
            from omnisink.kernels.layout import Layout
            from omnisink.kernels.workspace import Workspace

            token_mask = None if self._token_mask is None else self._token_mask.to(device)
            found = Workspace.of(Layout.of_batch(*self._shape, token_mask, device), self._layers)
            self._workspaces[device] = found
        return found
