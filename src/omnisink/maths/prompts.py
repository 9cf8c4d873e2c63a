"""The prompts of one prefill: what its layers find and do in turn, by kernels where they run and by PyTorch elsewhere.

Whoever calls this does not know which. Masks are the same either way; kernels fill in tensors that are made once for
all layers, PyTorch's operators make new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omnisink.maths.choice import kernels_run_on
from omnisink.maths.host import is_eager_cpu
from omnisink.maths.magnitude import token_magnitude
from omnisink.maths.relaxation import attend_to_all, choose_rows, replace_rows
from omnisink.maths.rotation import rotate, sink_direction
from omnisink.maths.sinks import massive_activation_sinks

if TYPE_CHECKING:
    from omnisink.maths.kernel_prompts import KernelPrompts


class Prompts:
    """What the layers of a prefill share.

    Shapes: the residual stream `hidden` (B, S, d); `sinks` of a layer (B, S) bool; `query` (B, H, S, D), `key`
    (B, K, T, D) and `value` (B, K, T, D'); head outputs `output` (B, S, H, D'), which are changed in place where no
    gradient is asked for; `direction` (B, H, D') float32.

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
        self._by_kernels: KernelPrompts | None = None
        self.frozen = None if token_mask is None else (~token_mask).contiguous()
        self.relaxed_at: Tensor | None = None

    def find_sinks(
        self, layer: int, hidden: Tensor, *, min_activation: float, median_ratio: float
    ) -> tuple[Tensor, Tensor]:
        """Return the sinks of a layer, and the largest activation of every token, (B, S) float32.

        See `omnisink.maths.sinks.massive_activation_sinks`. The magnitude of padding may be zero.
        """
        if hidden.requires_grad:
            hidden = hidden.detach()
        thresholds = {"min_activation": min_activation, "median_ratio": median_ratio}
        if kernels_run_on(hidden):
            return self._kernels().find_sinks(layer, hidden, **thresholds)
        magnitude = token_magnitude(hidden)
        token_mask = self._token_mask_on(hidden.device)
        return massive_activation_sinks(hidden, token_mask, magnitude=magnitude, **thresholds), magnitude

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
        layer, sinks, output, query, key, value
            Of the layer, as above.
        window : int, optional
            Keys that the layer's queries reach back over. Longer sequences are left as they are.
        most : int
            Rows of a sequence that are relaxed where no kernel runs and the host cannot look at their number.
        **options
            Of `omnisink.maths.relaxation.attend_to_all`.

        Returns
        -------
        output : Tensor
            (B, S, H, D').
        too_many : Tensor or None
            Bool scalar, whether there were more than `most`; None where that does not matter.
        """
        if kernels_run_on(output, query, key, value):
            stamps = self._stamps(output.device)
            self._kernels().relax(layer, sinks, output, query, key, value, stamps=stamps, window=window, **options)
            return output, None
        length = self._shape[1]
        token_mask = self._token_mask_on(output.device)
        fresh = sinks if self.relaxed_at is None else sinks & (self.relaxed_at.to(sinks.device) == 0)
        if window is not None:
            size = length if token_mask is None else token_mask.sum(dim=1, keepdim=True)
            fresh = fresh & (size <= window)
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
        self.relaxed_at = torch.where(fresh, layer + 1, self._stamps(sinks.device))
        return replace_rows(output, rows, index, valid), too_many

    def freeze_and_point(self, sinks: Tensor, value: Tensor, heads: int, out: Tensor | None = None) -> Tensor:
        """Add a layer's sinks to the frozen tokens, and return the direction to their mean value, zero without a sink.

        See `omnisink.maths.rotation.sink_direction`. The direction stands in `out`, of its shape and dtype, where that
        is given and needs no gradient.
        """
        if kernels_run_on(value):
            direction, self.frozen = self._kernels().freeze_and_point(sinks, value, heads, out, self.frozen)
            return direction
        self.frozen = sinks if self.frozen is None else sinks | self.frozen.to(sinks.device)
        direction = sink_direction(value[:, :, : self._shape[1]], sinks, heads)
        return direction if out is None or direction.requires_grad else out.copy_(direction)

    def rotate(self, output: Tensor, direction: Tensor, *, gamma: float, tau: float) -> Tensor:
        """Rotate all tokens but the frozen ones; see `omnisink.maths.rotation.rotate`."""
        if output.stride(-1) == 1 and kernels_run_on(output, direction):
            self._kernels().rotate(output, direction, gamma=gamma, tau=tau, frozen=self.frozen)
            return output
        return rotate(output, direction, gamma=gamma, tau=tau, frozen=self.frozen)

    def _token_mask_on(self, device: torch.device) -> Tensor | None:
        return None if self._token_mask is None else self._token_mask.to(device)

    def _stamps(self, device: torch.device) -> Tensor:
        if self.relaxed_at is None:
            self.relaxed_at = torch.zeros(self._shape, dtype=torch.int32, device=device)
        elif self.relaxed_at.device != device:
            self.relaxed_at = self.relaxed_at.to(device)
        return self.relaxed_at

    def _kernels(self) -> KernelPrompts:
        if self._by_kernels is None:
            from omnisink.maths.kernel_prompts import KernelPrompts

            self._by_kernels = KernelPrompts(self._shape, self._token_mask, self._layers)
        return self._by_kernels
