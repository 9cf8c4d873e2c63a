"""Watch whether a residual stream holds numbers, without waiting for the accelerator until the end of the block."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from omnisink.maths.magnitude import any_nonfinite, nonfinite_tokens, stacked


@dataclass
class Finiteness:
    """What is known of the numbers in one prefill and in the passes that continued it. No host wait until `check`.

    Attributes
    ----------
    token_mask : Tensor or None
        (B, S) bool, False at padding, which may hold anything.
    magnitudes : dict of int to Tensor
        (B, S) float32, the largest activation of every token as it enters a layer; see
        `omnisink.maths.magnitude.nonfinite_tokens`. Where a layer is missing, it was not looked at.
    prompt, generated : Tensor or None
        Bool scalars: whether what left the decoder was not finite, in the prefill and in any pass after it but those
        of compiled graphs, which are not watched.
    """

    token_mask: Tensor | None = None
    magnitudes: dict[int, Tensor] = field(default_factory=dict)
    prompt: Tensor | None = None
    generated: Tensor | None = None

    def add_output(self, hidden: Tensor, token_mask: Tensor | None, *, is_prefill: bool) -> Tensor:
        """Take what left the decoder in a pass, (B, S' <= S, d), and return whether it was not finite."""
        if token_mask is not None:
            token_mask = token_mask[:, -hidden.shape[1] :]
        bad = any_nonfinite(hidden, token_mask)
        if is_prefill:
            self.prompt, self.generated = bad, torch.zeros_like(bad)
        elif not torch.compiler.is_compiling():  # A graph that writes to what outlives it cannot be a CUDA graph.
            before = self.generated
            if before is not None and before.device != bad.device:
                before = before.to(bad.device)
            self.generated = bad if before is None else before | bad
        return bad

    def reduced(self, earlier: Finiteness | None) -> Finiteness:
        """Return the same in a few bytes for each layer, together with what was known of earlier prefills."""
        from omnisink.methods.nonfinite import reduce

        return reduce(self, earlier)

    def check(self, model: nn.Module | None) -> None:
        """Raise an `OmnisinkError` where a number was not finite. The host waits for the accelerator.

        It says the first layer, the kind of number, the token where it is known, and the cause, for which the weights
        of the model are looked at; None is a model that is gone.
        """
        known = []
        if self.magnitudes:
            sizes = stacked(self.magnitudes)
            mask = None if self.token_mask is None else self.token_mask.to(sizes.device)
            known = [nonfinite_tokens(sizes, mask).any()]
        if any(bool(bad) for bad in (*known, self.prompt, self.generated) if bad is not None):
            from omnisink.methods.nonfinite import error

            raise error(self, model)
