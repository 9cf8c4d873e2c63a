"""The controls without which the gain of a contrastive method cannot be believed (arXiv 2504.10020)."""

from __future__ import annotations

from collections.abc import Mapping

from omnisink.methods.base import Method
from omnisink.methods.composed import parts_of
from omnisink.methods.contrast import Contrast
from omnisink.methods.names import BASELINE, name_of
from omnisink.methods.plausible import PlausibleTokens


def with_controls(methods: Mapping[str, Method | None]) -> dict[str, Method | None]:
    """Return the methods with the controls of the contrastive ones among them.

    These are the baseline, and the cut of implausible tokens with no contrast, once for each `beta`. Those that are
    there already are not doubled.

    Parameters
    ----------
    methods : mapping of str to Method or None
        By name; None is the baseline. Of a composition, its contrastive method counts.

    Returns
    -------
    dict of str to Method or None
        The baseline first where it was added; the cuts last. Without a contrastive method, the same methods.
    """
    parts = [part for one in methods.values() if one is not None for part in parts_of(one)]
    betas = [one.beta for one in parts if isinstance(one, Contrast) and not isinstance(one, PlausibleTokens)]
    if not betas:
        return dict(methods)
    found = dict(methods) if None in methods.values() else {BASELINE: None, **methods}
    for beta in dict.fromkeys(betas):
        control = PlausibleTokens(beta=beta)
        # A cut at 0 leaves nothing out: it is the baseline.
        if beta and control not in found.values():
            name = name_of(PlausibleTokens)
            found[name if beta == PlausibleTokens().beta else f"{name}:beta={beta!r}"] = control
    return found
