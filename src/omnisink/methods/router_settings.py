"""SinkRouter's settings, and what commands know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from omnisink.maths.bounds import whole_numbers
from omnisink.maths.threshold_curve import ThresholdCurve
from omnisink.methods.listing import Listed
from omnisink.methods.presets import Preset


class RouterListing(Listed):
    """See `omnisink.methods.listing.Listed`."""

    source: ClassVar[str] = "Liu, Liu, Gao, Qi, Zhang, Zhang, Chan (arXiv 2604.16883)"
    licence: ClassVar[str] = "not known"
    derived: ClassVar[str] = (
        "`anchor=sinks`; straight curves of thresholds; what a curve is outside its lengths; the attention on the CPU"
    )
    needs: ClassVar[str] = "a threshold calibrated to the model (`omnisink tune --target-skip`)"
    calibrated: ClassVar[tuple[str, ...]] = ("threshold",)
    measured: ClassVar[str] = (
        "SmolLM2-135M, needle at 512 tokens: 12 of 12 right without it, none with a threshold of 0.55, which leaves "
        "out 6% of the heads; steps over 32,768 tokens with 60% left out take 0.62 and 0.68 of the baseline's time on "
        "two cores"
    )
    cost: ClassVar[str] = (
        "lengths of the values in a prefill; a cosine for each query head in a step, where routed heads do not attend"
    )
    tested: ClassVar[str] = (
        "sdpa, eager, flex_attention; dynamic and static caches; padding on both sides; beams; torch.compile"
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "value": Preset("Give a routed head the value of the first token instead of zeros.", {"surrogate": "value"}),
        "sinks": Preset(
            "Compare with the key of the strongest sink of each layer instead of the first token's.",
            {"anchor": "sinks"},
        ),
    }


@dataclass(frozen=True)
class RouterSettings:
    """The settings of `omnisink.methods.sink_router.SinkRouter`.

    Parameters
    ----------
    threshold : float or tuple of (float, float)
        A key/value head is routed where its score is above it: one number, or a curve of points (length in tokens,
        threshold), see `omnisink.maths.threshold_curve.ThresholdCurve`. From 1 on nothing is routed.
    surrogate : {"zero", "value"}
        What the head outputs of a routed head are: zeros, as in the paper, or the value of the anchor, as in the
        authors' description of their code.
    skip_layers : tuple of int
        Layers that are never routed.
    anchor : {"first", "sinks"}
        Whose key queries are compared with: that of the first real token of each sequence, as in the paper; or that
        of the strongest sink of each layer, which is our own.
    fit : {"linear", "cubic"}
        How a curve of thresholds runs between its points: straight, or as the paper's polynomial of the third degree.

    Raises
    ------
    ValueError
        If a setting is not of its kind or range.
    """

    threshold: float | tuple[tuple[float, float], ...] = 0.55
    surrogate: Literal["zero", "value"] = "zero"
    skip_layers: tuple[int, ...] = (0, 1)
    anchor: Literal["first", "sinks"] = "first"
    fit: Literal["linear", "cubic"] = "linear"

    if TYPE_CHECKING:  # The thresholds by length; None where there is one for all lengths.
        curve: ClassVar[ThresholdCurve | None]

    def __post_init__(self) -> None:
        for name, known in (("surrogate", ("zero", "value")), ("anchor", ("first", "sinks"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        object.__setattr__(self, "skip_layers", tuple(sorted(set(whole_numbers("skip_layers", self.skip_layers)))))
        if isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool):
            if not abs(self.threshold) < float("inf"):
                raise ValueError(f"threshold must be a finite number, got {self.threshold}")
            if self.fit != "linear":
                raise ValueError("fit belongs to a curve of thresholds, as in threshold=[[1024,0.5],[4096,0.53]]")
            object.__setattr__(self, "curve", None)
            return
        try:
            points = tuple((float(length), float(threshold)) for length, threshold in self.threshold)  # type: ignore[union-attr]
        except (TypeError, ValueError):
            raise ValueError(
                f"threshold must be a number, or pairs of a length and a threshold, got {self.threshold!r}"
            ) from None
        # No setting: it follows from two of them, and is made once.
        curve = ThresholdCurve(points, self.fit)
        object.__setattr__(self, "curve", curve)
        object.__setattr__(self, "threshold", tuple(curve.points))
