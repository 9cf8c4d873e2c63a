"""Say where a residual stream stopped being a number, once the host may wait."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from omnisink.errors import OmnisinkError
from omnisink.maths.finite import any_nonfinite, cause_of_nonfinite, nonfinite_by_layer, nonfinite_tokens


@dataclass
class Finiteness:
    """What is known of the numbers in one prefill and in the passes that continued it. No host wait until `check`.

    Attributes
    ----------
    token_mask : Tensor or None
        (B, S) bool, False at padding, which may hold anything.
    magnitudes : dict of int to Tensor
        (B, S) float32, the largest activation of every token as it enters a layer; see
        `omnisink.maths.finite.nonfinite_tokens`. Where a layer is missing, it was not looked at.
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

    def reduced(self) -> Finiteness:
        """Return the same in a few bytes for each layer: the largest magnitude of any real token, as (1, 1)."""
        if not self.magnitudes:
            return Finiteness(None, {}, self.prompt, self.generated)
        stacked = _stacked(self.magnitudes)
        mask = None if self.token_mask is None else self.token_mask.to(stacked.device)
        peaks = torch.where(nonfinite_tokens(stacked, mask), stacked, 0).amax(dim=(1, 2), keepdim=True)
        return Finiteness(None, dict(zip(self.magnitudes, peaks.unbind(), strict=True)), self.prompt, self.generated)

    def merge(self, other: Finiteness) -> Finiteness:
        """Return what is not finite in either of two reduced ones."""
        both = self.magnitudes.keys() & other.magnitudes.keys()
        peaks = {**other.magnitudes, **self.magnitudes}
        if both:
            one, two = (_stacked({layer: of.magnitudes[layer] for layer in both}) for of in (self, other))
            peaks.update(zip(both, torch.maximum(one, two.to(one.device)).unbind(), strict=True))
        return Finiteness(None, peaks, _either(self.prompt, other.prompt), _either(self.generated, other.generated))

    def check(self, model: nn.Module | None) -> None:
        """Raise where a number was not finite. The host waits for the accelerator.

        Parameters
        ----------
        model : nn.Module or None
            Whose weights are looked at then; None where it is gone.

        Raises
        ------
        OmnisinkError
            With the first layer, the kind of number, the token where it is known, and the cause.
        """
        if found := self._found():
            cause = "" if model is None else f". {cause_of_nonfinite(model.named_parameters())}"
            raise OmnisinkError(f"the residual stream is not finite: {found}{cause}")

    def _found(self) -> str | None:
        layers = sorted(self.magnitudes)
        nan, inf = nonfinite_by_layer([self.magnitudes[layer] for layer in layers], self.token_mask)
        bad = [layer for layer, flag in zip(layers, (nan | inf).tolist(), strict=True) if flag]
        if bad:
            at = layers.index(bad[0])
            kinds = [kind for kind, flags in (("NaN", nan), ("inf", inf)) if bool(flags[at])]
            more = f", and {len(bad) - 1} more after it" if len(bad) > 1 else ""
            return f"{' and '.join(kinds)} enters layer {bad[0]}{self._where(bad[0])}{more}"
        if self.prompt is not None and bool(self.prompt):
            return "NaN or inf leaves the last layer"
        if self.generated is not None and bool(self.generated):
            return "NaN or inf leaves the last layer at a generated token"
        return None

    def _where(self, layer: int) -> str:
        magnitude = self.magnitudes[layer]
        if magnitude.shape[1] == 1:
            return ""
        mask = None if self.token_mask is None else self.token_mask.to(magnitude.device)
        sequence, position = nonfinite_tokens(magnitude, mask).nonzero()[0].tolist()
        return f" (first at token {position}{f' of sequence {sequence}' if len(magnitude) > 1 else ''})"


def _stacked(magnitudes: dict[int, Tensor]) -> Tensor:
    """Return magnitudes of the same shape (B, S) as one tensor: an operation for all layers, not one for each."""
    device = next(iter(magnitudes.values())).device
    return torch.stack([m if m.device == device else m.to(device) for m in magnitudes.values()])


def _either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one | other.to(one.device)
