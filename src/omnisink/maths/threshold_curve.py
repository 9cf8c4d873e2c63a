"""A threshold that depends on the length of the context, fitted to points where it was calibrated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: How a curve runs between its points.
FITS = ("linear", "cubic")


class ThresholdCurve:
    """A threshold as a function of the number of tokens.

    Between the shortest and the longest length of its points it is a straight line from point to point, or a
    polynomial of the third degree in ``length / longest``, fitted to all of them by least squares. Outside it stays
    what it is at the nearer end: a polynomial of the third degree says nothing there.

    Parameters
    ----------
    points : sequence of (float, float)
        Lengths in tokens, each once, and their thresholds.
    fit : {"linear", "cubic"}
        How it runs between them.

    Raises
    ------
    ValueError
        If there is no point, a length is not positive or comes twice, a number is not finite, or there are fewer than
        four points for a polynomial of the third degree.
    """

    def __init__(self, points: Sequence[tuple[float, float]], fit: str = "linear") -> None:
        self.points = sorted((float(length), float(threshold)) for length, threshold in points)
        lengths = [length for length, _ in self.points]
        if not lengths or not all(0 < length < float("inf") for length in lengths) or len({*lengths}) < len(lengths):
            raise ValueError("a curve of thresholds needs lengths above 0, each once, as in [[1024,0.5],[4096,0.53]]")
        if not all(abs(threshold) < float("inf") for _, threshold in self.points):
            raise ValueError("the thresholds of a curve must be finite numbers")
        if fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
        if fit == "cubic" and len(lengths) < 4:
            raise ValueError(f"a cubic fit needs four lengths or more, got {len(lengths)}: use fit='linear'")
        self.fit = fit
        self.shortest, self.longest = lengths[0], lengths[-1]
        #: The polynomial in ``length / longest``, from the third power down to the constant.
        self.coefficients = _cubic(self.points) if fit == "cubic" else ()

    def at(self, length: float) -> float:
        """Return the threshold at a length."""
        length = min(max(float(length), self.shortest), self.longest)
        if self.fit == "cubic":
            a, b, c, d = self.coefficients
            x = length / self.longest
            return ((a * x + b) * x + c) * x + d
        threshold = self.points[0][1]
        for (left, low), (right, high) in zip(self.points, self.points[1:], strict=False):
            threshold += (high - low) * min(max((length - left) / (right - left), 0.0), 1.0)
        return threshold

    def on(self, lengths: Tensor) -> Tensor:
        """Return the thresholds at lengths (B,) on a device, float32, without looking at them."""
        x = lengths.float().clamp(self.shortest, self.longest)
        if self.fit == "cubic":
            a, b, c, d = self.coefficients
            x = x / self.longest
            return ((a * x + b) * x + c) * x + d
        # A sum of ramps, one for each stretch, as above: nothing is searched for.
        found = torch.full_like(x, self.points[0][1])
        for (left, low), (right, high) in zip(self.points, self.points[1:], strict=False):
            found = found + (high - low) * ((x - left) / (right - left)).clamp(0, 1)
        return found


def _cubic(points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    x = torch.tensor([length / points[-1][0] for length, _ in points], dtype=torch.float64)
    y = torch.tensor([threshold for _, threshold in points], dtype=torch.float64)
    powers = torch.stack([x**3, x**2, x, torch.ones_like(x)], dim=1)
    return tuple(torch.linalg.lstsq(powers, y[:, None]).solution[:, 0].tolist())
