"""Say where a residual stream stopped being a number, and keep what is known of prefills that are over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisink.errors import OmnisinkError
from omnisink.maths.finite import cause_of_nonfinite, nonfinite_by_layer
from omnisink.maths.magnitude import nonfinite_tokens, stacked

if TYPE_CHECKING:
    from omnisink.methods.finiteness import Finiteness


def error(finite: Finiteness, model: nn.Module | None) -> OmnisinkError:
    """Return the error that says what is not finite, and why, as far as the weights of the model tell."""
    cause = "" if model is None else f". {cause_of_nonfinite(model.named_parameters())}"
    return OmnisinkError(f"the residual stream is not finite: {_found(finite)}{cause}")


def reduce(finite: Finiteness, earlier: Finiteness | None) -> Finiteness:
    """Return what is known in a few bytes for each layer: the largest magnitude of any real token, as (1, 1).

    Parameters
    ----------
    finite : Finiteness
        What is known of one prefill.
    earlier : Finiteness or None
        What is known of those before, reduced.
    """
    peaks: dict[int, Tensor] = {}
    if finite.magnitudes:
        sizes = stacked(finite.magnitudes)
        mask = None if finite.token_mask is None else finite.token_mask.to(sizes.device)
        largest = torch.where(nonfinite_tokens(sizes, mask), sizes, 0).amax(dim=(1, 2), keepdim=True)
        peaks = dict(zip(finite.magnitudes, largest.unbind(), strict=True))
    now = replace(finite, token_mask=None, magnitudes=peaks)
    return now if earlier is None else _merge(now, earlier)


def _merge(one: Finiteness, other: Finiteness) -> Finiteness:
    both = one.magnitudes.keys() & other.magnitudes.keys()
    peaks = {**other.magnitudes, **one.magnitudes}
    if both:
        first, second = (stacked({layer: of.magnitudes[layer] for layer in both}) for of in (one, other))
        peaks.update(zip(both, torch.maximum(first, second.to(first.device)).unbind(), strict=True))
    prompt, generated = _either(one.prompt, other.prompt), _either(one.generated, other.generated)
    return replace(one, magnitudes=peaks, prompt=prompt, generated=generated)


def _either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one | other.to(one.device)


def _found(finite: Finiteness) -> str:
    layers = sorted(finite.magnitudes)
    nan, inf = nonfinite_by_layer([finite.magnitudes[layer] for layer in layers], finite.token_mask)
    bad = [layer for layer, flag in zip(layers, (nan | inf).tolist(), strict=True) if flag]
    if bad:
        at = layers.index(bad[0])
        kinds = [kind for kind, flags in (("NaN", nan), ("inf", inf)) if bool(flags[at])]
        more = f", and {len(bad) - 1} more after it" if len(bad) > 1 else ""
        return f"{' and '.join(kinds)} enters layer {bad[0]}{_where(finite, bad[0])}{more}"
    if finite.prompt is not None and bool(finite.prompt):
        return "NaN or inf leaves the last layer"
    return "NaN or inf leaves the last layer at a generated token"


def _where(finite: Finiteness, layer: int) -> str:
    magnitude = finite.magnitudes[layer]
    if magnitude.shape[1] == 1:
        return ""
    mask = None if finite.token_mask is None else finite.token_mask.to(magnitude.device)
    sequence, position = nonfinite_tokens(magnitude, mask).nonzero()[0].tolist()
    return f" (first at token {position}{f' of sequence {sequence}' if len(magnitude) > 1 else ''})"
