"""The settings of OutRo, the same on transformers and in a server."""

from __future__ import annotations

from dataclasses import dataclass

from omnisink.errors import shown
from omnisink.maths.bounds import check_gamma, check_tau, check_threshold
from omnisink.maths.layers import is_detection_layer, is_relaxation_layer

_LAYERS = ("detect_layers", "relax_layers")


@dataclass(frozen=True)
class OutRoSettings:
    """What OutRo does, and how strongly.

    Parameters
    ----------
    gamma : float
        Strength of the rotation; 0 switches it off, negative turns away. It is specific to a model: tune it, on data
        that is not the test data. At most `omnisink.maths.bounds.MAX_GAMMA` (1e4) in absolute value.
    tau : float
        Temperature of the gate ``tanh(relu(cos) / tau)``, from 1e-6 to 1e6.
    rotate : bool
        Rotate head outputs.
    relax : bool
        Relax the mask of sink rows.
    decode : bool
        Rotate generated tokens too; False reproduces the authors' release.
    min_activation : float
        Smallest activation that can count as massive, at most 1e30.
    median_ratio : float
        How many times the sequence's median activation it must reach, at most 1e30.
    detect_layers : tuple of int, optional
        Layers that look for sinks; None is all but the last two.
    relax_layers : tuple of int, optional
        Layers that relax; None is every ``max(1, L // 7)``-th of L.
    max_relaxed : int
        Rows that can be relaxed at one layer of one sequence where no kernel does it and the host cannot look at their
        number: on accelerators other than CUDA devices, and in graphs compiled for a CPU. More than that raises at the
        end of the block; nothing is dropped silently.

    Raises
    ------
    ValueError
        If a setting is not a number of its range.
    """

    gamma: float = 3.0
    tau: float = 0.1
    rotate: bool = True
    relax: bool = True
    decode: bool = True
    min_activation: float = 100.0
    median_ratio: float = 1000.0
    detect_layers: tuple[int, ...] | None = None
    relax_layers: tuple[int, ...] | None = None
    max_relaxed: int = 256

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        check_tau(self.tau)
        for name in ("min_activation", "median_ratio"):
            check_threshold(name, getattr(self, name))
        for name in ("rotate", "relax", "decode"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {shown(getattr(self, name))}")
        if not isinstance(self.max_relaxed, int) or self.max_relaxed < 1:
            raise ValueError(f"max_relaxed must be a whole number of at least 1, got {shown(self.max_relaxed)}")
        for name in _LAYERS:
            layers = getattr(self, name)
            if layers is not None:
                try:
                    chosen = tuple(sorted({int(layer) for layer in layers}))
                except (TypeError, ValueError):
                    raise ValueError(f"{name} must be a list of layer numbers, got {shown(layers)}") from None
                if chosen and chosen[0] < 0:
                    raise ValueError(f"{name} must be a list of layer numbers, got {shown(list(chosen))}")
                object.__setattr__(self, name, chosen)

    def detects(self, layer: int, depth: int) -> bool:
        """Whether a layer of a decoder with `depth` layers looks for sinks."""
        return is_detection_layer(layer, depth) if self.detect_layers is None else layer in self.detect_layers

    def relaxes(self, layer: int, depth: int) -> bool:
        """Whether a layer of a decoder with `depth` layers is one that relaxes sink rows."""
        return is_relaxation_layer(layer, depth) if self.relax_layers is None else layer in self.relax_layers

    def check_depth(self, depth: int) -> None:
        """Refuse layers that a decoder with `depth` layers does not have, with a ValueError."""
        for name in _LAYERS:
            if outside := [layer for layer in getattr(self, name) or () if layer >= depth]:
                raise ValueError(f"{name} names {shown(outside)}, but the model has layers 0 to {depth - 1}")
