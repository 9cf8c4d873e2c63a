"""The prompts of one prefill: what its layers find and do in turn, by kernels where they run and by PyTorch elsewhere.

Whoever calls this does not know which. Masks are the same either way; kernels fill in tensors that are made once for
all layers, PyTorch's operators make new ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnisink.maths.choice import kernels_run_on
from omnisink.maths.host import is_eager_cpu
from omnisink.maths.magnitude import token_magnitude
from omnisink.maths.relaxation import attend_to_all, choose_rows, replace_rows
from omnisink.maths.rotation import rotate, sink_direction
from omnisink.maths.sinks import massive_activation_sinks


class Prompts:
    """What the layers of a prefill share.

    Parameters
    ----------
    batch, length : int
        B and S.
    token_mask : Tensor, optional
        (B, S) bool, False at padding. None: every token is real.
    layers : int
        Layers of the decoder.

    Attributes
    ----------
    frozen : Tensor or None
        (B, S) bool, tokens that are not rotated: padding, and sinks of this or an earlier layer. None is no token.
    relaxed_at : Tensor or None
        (B, S) int32, one plus the layer at which a token's row was relaxed, 0 where it was not; None is no token.
    """

    def __init__(self, batch: int, length: int, token_mask: Tensor | None, layers: int) -> None:
        self._shape = batch, length
        self._token_mask = token_mask
        self._layers = layers
        self._workspaces: dict[torch.device, Any] = {}
        self.frozen = None if token_mask is None else (~token_mask).contiguous()
        self.relaxed_at: Tensor | None = None

    def find_sinks(
        self, layer: int, hidden: Tensor, *, min_activation: float, median_ratio: float
    ) -> tuple[Tensor, Tensor]:
        """Find the sinks of a layer; see `omnisink.maths.sinks.massive_activation_sinks`.

        Parameters
        ----------
        layer : int
            Which layer.
        hidden : Tensor
            Residual stream entering it, (B, S, d).
        min_activation, median_ratio : float
            Thresholds.

        Returns
        -------
        sinks : Tensor
            (B, S) bool.
        magnitude : Tensor
            (B, S) float32, the largest activation of every token; of padding it may be zero.
        """
        if hidden.requires_grad:
            hidden = hidden.detach()
        if kernels_run_on(hidden):
            from omnisink.kernels.detection import find_sinks

            workspace = self._workspace(hidden.device)
            find_sinks(hidden, workspace, layer, min_activation=min_activation, median_ratio=median_ratio)
            return workspace.sinks[layer], workspace.magnitudes[layer]
        magnitude = token_magnitude(hidden)
        token_mask = None if self._token_mask is None else self._token_mask.to(hidden.device)
        sinks = massive_activation_sinks(
            hidden, token_mask, min_activation=min_activation, median_ratio=median_ratio, magnitude=magnitude
        )
        return sinks, magnitude

    def relax(
        self,
        layer: int,
        sinks: Tensor,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        window: int | None = None,
        most: int,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Let sinks that have not been relaxed yet attend to the whole prompt.

        Parameters
        ----------
        layer : int
            Which layer.
        sinks : Tensor
            (B, S) bool, those of the layer.
        output : Tensor
            Head outputs (B, S, H, D').
        query, key, value : Tensor
            (B, H, S, D), (B, K, T, D) and (B, K, T, D').
        window : int, optional
            Keys that the layer's queries reach back over. Longer sequences are left as they are.
        most : int
            Rows of a sequence that are relaxed where no kernel runs and the host cannot look at their number.
        **options
            Of `omnisink.maths.relaxation.attend_to_all`.

        Returns
        -------
        output : Tensor
            (B, S, H, D'), changed in place where no gradient is asked for.
        too_many : Tensor or None
            Bool scalar, whether there were more than `most`; None where that does not matter.
        """
        if kernels_run_on(output, query, key, value):
            from omnisink.kernels.relaxation import relax_in_place

            stamps = self._stamps(output.device)
            layout = self._workspace(output.device).layout
            relax_in_place(output, query, key, value, sinks, stamps, layout, stamp=layer + 1, window=window, **options)
            return output, None
        length = self._shape[1]
        token_mask = None if self._token_mask is None else self._token_mask.to(output.device)
        fresh = sinks if self.relaxed_at is None else sinks & (self.relaxed_at.to(sinks.device) == 0)
        if window is not None:
            size = (
                torch.full_like(fresh[:, 0], length, dtype=torch.long) if token_mask is None else token_mask.sum(dim=1)
            )
            fresh = fresh & (size <= window)[:, None]
        count = fresh.sum(dim=1)
        too_many = None
        if is_eager_cpu(fresh):
            capacity = int(count.max())
            if capacity == 0:
                return output, None
        else:
            capacity = min(length, most)
            too_many = (count > capacity).any() if capacity < length else None
        index, valid = choose_rows(fresh, capacity)
        picked = query.gather(2, index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
        rows = attend_to_all(picked, key[:, :, :length], value[:, :, :length], token_mask, **options)
        stamps = self._stamps(sinks.device)
        self.relaxed_at = torch.where(fresh, layer + 1, stamps)
        return replace_rows(output, rows, index, valid), too_many

    def freeze_and_point(self, sinks: Tensor, value: Tensor, heads: int, out: Tensor | None = None) -> Tensor:
        """Add a layer's sinks to the frozen tokens, and return the unit vectors of their mean value.

        Parameters
        ----------
        sinks : Tensor
            (B, S) bool.
        value : Tensor
            (B, K, T, D').
        heads : int
            Query heads H.
        out : Tensor, optional
            (B, H, D') float32, where the vectors are to stand where they need no gradient.

        Returns
        -------
        Tensor
            (B, H, D') float32, zero without a sink. See
            `omnisink.maths.rotation.sink_direction`.
        """
        if kernels_run_on(value):
            from omnisink.kernels.direction import write_direction

            if out is None:
                out = value.new_empty((len(value), heads, value.shape[3]), dtype=torch.float32)
            frozen = self.frozen
            if frozen is None:
                frozen = self.frozen = torch.zeros_like(sinks)
            elif frozen.device != value.device:
                frozen = self.frozen = frozen.to(value.device)
            write_direction(value, sinks, self._workspace(value.device).layout, out, frozen=frozen)
            return out
        self.frozen = sinks if self.frozen is None else sinks | self.frozen.to(sinks.device)
        direction = sink_direction(value[:, :, : self._shape[1]], sinks, heads)
        return direction if out is None or direction.requires_grad else out.copy_(direction)

    def rotate(self, output: Tensor, direction: Tensor, *, gamma: float, tau: float) -> Tensor:
        """Rotate all tokens but the frozen ones; see `omnisink.maths.rotation.rotate`.

        Parameters
        ----------
        output : Tensor
            Head outputs (B, S, H, D').
        direction : Tensor
            (B, H, D') float32.
        gamma, tau : float
            Strength, and temperature of the gate.

        Returns
        -------
        Tensor
            (B, S, H, D'), changed in place where no gradient is asked for.
        """
        if output.stride(-1) == 1 and kernels_run_on(output, direction):
            from omnisink.kernels.rotation import rotate_in_place

            prepared = self._workspace(output.device).layout.prepared
            rotate_in_place(output, direction, gamma=gamma, tau=tau, frozen=self.frozen, prepared=prepared)
            return output
        return rotate(output, direction, gamma=gamma, tau=tau, frozen=self.frozen)

    def _stamps(self, device: torch.device) -> Tensor:
        if self.relaxed_at is None:
            self.relaxed_at = torch.zeros(self._shape, dtype=torch.int32, device=device)
        elif self.relaxed_at.device != device:
            self.relaxed_at = self.relaxed_at.to(device)
        return self.relaxed_at

    def _workspace(self, device: torch.device) -> Any:
        found = self._workspaces.get(device)
        if found is None:
            from omnisink.kernels.layout import Layout
            from omnisink.kernels.workspace import Workspace

            token_mask = None if self._token_mask is None else self._token_mask.to(device)
            found = Workspace.of(Layout.of_batch(*self._shape, token_mask, device), self._layers)
            self._workspaces[device] = found
        return found
