"""Which layers a method looks at and acts on, where its user names none."""

from __future__ import annotations


def is_detection_layer(layer: int, depth: int) -> bool:
    """Whether sinks are looked for at a layer of a decoder with `depth` layers: at all but the last two.

    In the last two, activations of every token grow.
    """
    return layer < depth - 2


def is_relaxation_layer(layer: int, depth: int) -> bool:
    """Whether the mask of sink rows is relaxed at a layer: every ``max(1, depth // 7)``-th, as in OutRo's release."""
    return layer % max(1, depth // 7) == 0
