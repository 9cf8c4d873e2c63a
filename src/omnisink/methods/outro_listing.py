"""What commands know of OutRo: its presets, its source, what it is tested with and where it is tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from omnisink.methods.listing import Listed
from omnisink.methods.outro_space import OutRoSpace
from omnisink.methods.presets import Preset
from omnisink.methods.space import SearchSpace


class OutRoListing(Listed):
    """See `omnisink.methods.listing.Listed`."""

    search_space: ClassVar[SearchSpace] = OutRoSpace()
    source: ClassVar[str] = "Yoo, Jang, Chung (arXiv 2603.14337)"
    licence: ClassVar[str] = "no licence file"
    cost: ClassVar[str] = (
        "detection and at most `max_relaxed` rows in a prefill; one rotation of head outputs in a step"
    )
    measured: ClassVar[str] = (
        "SmolOmni, 1,200 questions of SynthAV: 93.5% with a baseline of 93.4%, no evidence of a gain"
    )
    tested: ClassVar[str] = (
        "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams; torch.compile; "
        "every family of the support table; vLLM on CPUs"
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "rotate": Preset("Rotate only, without mask relaxation.", {"relax": False}),
        "relax": Preset("Relax the mask only, without rotation.", {"rotate": False}),
        "away": Preset(
            "Rotate the other way: away from the sink's value, or toward it where gamma is negative.",
            negate=("gamma",),
        ),
        "random": Preset(
            "Rotate by the same angles toward random directions: a control.",
            {"direction": "random"},
            home="omnisink.methods.controls:OutRoControl",
        ),
    }
