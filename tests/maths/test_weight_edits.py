"""What tokens receive, shares of each head's own set, and raised scores, against whole maps in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisink.maths import decomposition
from omnisink.maths.decomposition import attend
from omnisink.maths.head_sets import head_shares
from omnisink.maths.received import received_from
from omnisink.maths.score_boost import attend_boosted
from tests.maths.test_decomposition import cases


@given(case=cases(), block=st.sampled_from([1, 40, 1 << 20]))
@settings(max_examples=100, deadline=None)
def test_what_is_received_is_the_sum_over_the_rows_of_the_map(case, block):
    batch, length = case.token_mask.shape
    senders = torch.rand(batch, 3, length, generator=torch.Generator().manual_seed(length)) > 0.5
    own = (True, False, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decomposition, "_BLOCK", {"cpu": block})
        received, count = received_from(case.query, case.key, senders, case.mask, own=own, **case.options)
        every, number = received_from(case.query, case.key, senders, case.mask, **case.options)
    others = case.seen & ~torch.eye(length, dtype=torch.bool)
    for x in range(3):
        seen = case.seen if own[x] else others
        expected = torch.einsum("bn,bhnt->bht", senders[:, x].double(), case.weights * seen[:, None])
        assert (received[:, :, x, :length] - expected).abs().max() < 1e-5
        assert torch.equal(
            count[:, x, :length].double(), torch.einsum("bn,bnt->bt", senders[:, x].double(), seen.double())
        )
    assert torch.equal(every[:, :, 0], received[:, :, 0])
    assert torch.equal(number[:, 0], count[:, 0])
    assert (received[..., length:] == 0).all()
    assert (count[..., length:] == 0).all()


@given(case=cases(), block=st.sampled_from([1, 40, 1 << 20]))
@settings(max_examples=100, deadline=None)
def test_each_head_has_a_share_of_its_own_set(case, block):
    heads, length = case.query.shape[1:3]
    keys = case.key.shape[2]
    value = case.columns.expand(-1, case.key.shape[1], -1, -1)
    marks = torch.rand(len(case.query), heads, keys, generator=torch.Generator().manual_seed(keys)) > 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decomposition, "_BLOCK", {"cpu": block})
        output, mass, others = head_shares(case.query, case.key, value, marks, case.mask, **case.options)
    last = slice(length - 1, length)
    row = [case.query[:, :, last], case.key, value, marks, lambda rows: case.mask(last)]
    for found, whole in zip(head_shares(*row, **case.options), (output, mass, others), strict=True):
        assert torch.allclose(found, whole[:, :, last], atol=1e-5)
    kept = case.weights * marks[:, :, None, :length]
    repeated = value[:, :, :length].double().repeat_interleave(heads // value.shape[1], dim=1)
    assert (output - kept @ repeated).abs().max() < 2e-5
    assert (mass - kept.sum(dim=-1)).abs().max() < 1e-5
    assert (others - (case.weights * ~marks[:, :, None, :length]).sum(dim=-1)).abs().max() < 1e-5


@given(case=cases(), strength=st.floats(-2, 2))
@settings(max_examples=100, deadline=None)
def test_raised_scores_are_those_of_a_map_made_by_hand(case, strength):
    heads, length = case.query.shape[1:3]
    keys = case.key.shape[2]
    value = case.columns.expand(-1, case.key.shape[1], -1, -1)
    boosted = torch.rand(len(case.query), keys, generator=torch.Generator().manual_seed(keys)) > 0.5
    found = attend_boosted(case.query, case.key, value, boosted, case.mask, strength=strength, **case.options)
    groups = heads // case.key.shape[1]
    scale = case.options["scaling"] or case.query.shape[-1] ** -0.5
    key = case.key[:, :, :length].double().repeat_interleave(groups, dim=1)
    scores = case.query.double() @ key.mT * scale
    if (cap := case.options["softcap"]) is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores + strength * scores.abs() * boosted[:, None, None, :length]
    raised = scores.exp() * case.seen[:, None]
    total = raised.sum(dim=-1, keepdim=True)
    if (learned := case.options["learned_sink"]) is not None:
        total = total + learned.double().exp()[None, :, None, None]
    weights = raised / total.masked_fill(total == 0, 1.0)
    expected = weights @ value[:, :, :length].double().repeat_interleave(groups, dim=1)
    slack = 2e-5 * (1 + float(expected.abs().max()))
    assert (found - expected).abs().max() < slack
    last = slice(length - 1, length)
    row = [case.query[:, :, last], case.key, value, boosted, lambda rows: case.mask(last)]
    assert (attend_boosted(*row, strength=strength, **case.options) - expected[:, :, last]).abs().max() < slack


@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_without_strength_or_keys_the_scores_are_the_models_own(case):
    value = case.columns.expand(-1, case.key.shape[1], -1, -1)
    plain = attend(case.query, case.key, value, case.mask, **case.options)
    nothing = torch.zeros(len(case.query), case.key.shape[2], dtype=torch.bool)
    for boosted, strength in ((nothing, 0.7), (~nothing, 0.0)):
        found = attend_boosted(case.query, case.key, value, boosted, case.mask, strength=strength, **case.options)
        assert torch.equal(found, plain)
