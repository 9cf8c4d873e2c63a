"""Which tokens ASD chooses, and which rows it changes."""

from __future__ import annotations

import pytest
import torch

from omnisink.methods.asd import ASD, _best
from omnisink.methods.criteria import Positions, SinkDimension
from omnisink.methods.registry import parse_method
from tests.methods.reference_edits import run
from tests.methods.weight_cases import IMAGE, SINKS, SOUND, on, spanned
from tests.reference_outro import tiny_llama


@pytest.mark.parametrize(
    ("count", "share", "up", "kept"),
    [
        (6, 0.5, False, 3),
        (5, 0.5, False, 2),
        (5, 0.5, True, 3),
        (1, 0.5, False, 1),
        (9, 1 / 3, False, 3),
        (0, 0.5, True, 0),
    ],
)
def test_a_share_of_the_marked_tokens_is_kept_and_one_at_least(count, share, up, kept):
    marked = torch.arange(12)[None] < count
    score = torch.arange(12, dtype=torch.float32)[None].flip(1)
    score[0, 11] = 99.0  # not marked
    assert _best(marked, score, share, up).nonzero()[:, 1].tolist() == list(range(kept))
    assert _best(marked, torch.zeros(1, 12), share, up).nonzero()[:, 1].tolist() == list(range(kept))


def test_rows_of_images_and_sounds_stay_as_they_are():
    model, ids = tiny_llama(num_hidden_layers=3), spanned()
    with on(ASD(Positions(SINKS), start=2, strength=5.0), model, {"input_ids": ids}):
        found = run(model, ids)
    changed = (found != run(model, ids)).any(dim=-1)
    text = (ids[0] != IMAGE) & (ids[0] != SOUND)
    assert not changed[~text].any()
    # From the first cross-modal sink on, every row of text reads it.
    assert changed[text & (torch.arange(17) > 9)].all()


def test_the_papers_criterion_is_a_preset():
    assert parse_method("asd:qwen2.5-omni-7b") == ASD(SinkDimension((458, 2570), 25.0))
    assert (ASD().strength, ASD().start, ASD().share) == (0.2, 6, 0.5)
