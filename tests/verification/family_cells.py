"""Which family is run on which attention backend, and the tiny models for it.

A full table of families, backends, caches and sides of padding would mostly repeat itself. So a test takes every
family once, with the backends in turn, and a second one holds that all backends of a family agree on the same batch.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from omnisink.verification.families import FAMILIES
from tests.reference_outro import FLEX_WARNING
from tests.skips import why_skipped

#: For modules that run families: what transformers warns of there, and flex attention as it can be run on a CPU.
MARKS = [
    FLEX_WARNING,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("flex_attention_uncompiled"),
]

ACCEPTED = [name for name, family in FAMILIES.items() if family.expectation != "refused"]
REFUSED = [name for name, family in FAMILIES.items() if family.expectation == "refused"]
SEVERAL = [name for name in ACCEPTED if len(FAMILIES[name].backends) > 1]
#: Prompts of the padded batch that `Family.inputs` makes.
LENGTHS = (16, 11)

Cell = tuple[str, str]


def in_turn(first: int = 0, what: str = "*") -> list[Cell]:
    """Return every accepted family with one backend: the first, the second and so on, beginning with number `first`.

    Backends on which `what` cannot be run (`tests.skips`) are left out.
    """
    cells = []
    for number, name in enumerate(ACCEPTED, first):
        backends = [b for b in FAMILIES[name].backends if why_skipped(name, b, what) is None]
        cells.append((name, backends[number % len(backends)]))
    return cells


def that_see_or_hear(cells: list[Cell]) -> list[Cell]:
    """Keep the families that take more than text."""
    return [(name, backend) for name, backend in cells if FAMILIES[name].multimodal_inputs is not None]


@lru_cache(maxsize=4)
def tiny(name, backend, plant=True):
    """Build a family's tiny model."""
    return FAMILIES[name].build(attn_implementation=backend, plant=plant)


def reader(model):
    """Return the part that reads prompts: the full Qwen2.5-Omni has no forward pass of its own."""
    return getattr(model, "thinker", model)


def same(found, expected):
    """Equal but for float32's rounding, relative to the size of what is compared."""
    return (found - expected).abs().max() <= 2e-5 * max(1.0, float(expected.abs().max()))


def alone(inputs, b):
    """Take one prompt out of a padded batch."""
    token_mask = inputs["attention_mask"][b].bool()
    return {k: v[b : b + 1, token_mask] for k, v in inputs.items()}
