"""The operator of SinkRouter: scores, decisions, attention with the heads that are left, and curves of thresholds."""

from __future__ import annotations

import pytest
import torch

from omnisink.maths import routing
from omnisink.maths.routing import Visible, anchor_scores, route, routed_decode
from omnisink.maths.routing_host import attend_active
from omnisink.maths.threshold_curve import ThresholdCurve

#: The paper's points for Llama-3.1-8B, and the polynomial that least squares gives for them.
PAPER = (
    (2048, 0.506),
    (8192, 0.525),
    (16384, 0.543),
    (32768, 0.566),
    (49152, 0.574),
    (65536, 0.574),
    (98304, 0.562),
    (110592, 0.556),
    (131072, 0.543),
)


def inputs(batch=2, kv_heads=3, groups=4, keys=37, width=8, value_width=6, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    return {
        "query": draw(batch, kv_heads * groups, 1, width),
        "key": draw(batch, kv_heads, keys, width),
        "value": draw(batch, kv_heads, keys, value_width),
        "anchor": draw(batch, kv_heads, width),
    }


def everything(batch, keys):
    return Visible(torch.zeros(batch, dtype=torch.long), torch.full((batch,), keys))


def restated(query, key, value, routed, seen, added, scale, softcap, surrogate):
    """One sequence, one head at a time, in float64; `seen` and `added` are (B, T)."""
    groups = query.shape[1] // key.shape[1]
    output = torch.zeros(*query.shape[:3], value.shape[3], dtype=torch.float64)
    for b in range(len(query)):
        for h in range(query.shape[1]):
            g = h // groups
            if routed[b, g]:
                output[b, h, 0] = 0 if surrogate is None else surrogate[b, g].double()
                continue
            scores = key[b, g].double() @ query[b, h, 0].double() * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            scores = (scores + added[b].double()).masked_fill(~seen[b], float("-inf"))
            output[b, h, 0] = scores.softmax(dim=0) @ value[b, g].double()
    return output


def test_scores_are_the_mean_of_cosines():
    given = inputs()
    scores = anchor_scores(given["query"], given["anchor"])
    for b in range(2):
        for g in range(3):
            anchor = given["anchor"][b, g].double()
            own = given["query"][b, 4 * g : 4 * g + 4, 0].double()
            expected = sum(torch.dot(q, anchor) / (q.norm() * anchor.norm()) for q in own) / 4
            assert float(scores[b, g]) == pytest.approx(float(expected), abs=1e-6)
    longer = anchor_scores(7 * given["query"], 3 * given["anchor"])
    assert (longer - scores).abs().max() < 1e-6
    assert torch.equal(anchor_scores(0 * given["query"], given["anchor"]), torch.zeros(2, 3))


def test_parallel_vectors_are_not_above_one():
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randn(64, 5, 3, generator=generator)
    assert not route(anchor_scores(anchor[:, :, None], anchor), 1).any()
    assert route(anchor_scores(anchor[:, :, None], anchor), 1 - 1e-5).all()


def test_the_threshold_is_strict_and_may_differ_between_sequences():
    scores = torch.tensor([[0.5, 0.6], [0.5, 0.6]])
    assert route(scores, 0.5).tolist() == [[False, True]] * 2
    assert route(scores, torch.tensor([0.4, 0.7])).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("surrogate", [False, True])
@pytest.mark.parametrize("masked", ["no", "range", "bool", "float"])
def test_every_mixture_of_heads_equals_the_restatement(groups, softcap, surrogate, masked, monkeypatch):
    given = inputs(groups=groups)
    value = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(9)) if surrogate else None
    visible, seen, added = everything(2, 37), torch.ones(2, 37, dtype=torch.bool), torch.zeros(2, 37)
    if masked != "no":
        visible = Visible(torch.tensor([3, 0]), torch.tensor([30, 37]))
        seen[0, :3], seen[0, 30:] = False, False
    if masked == "bool":
        seen[:, 5:9] = False
        visible = Visible(visible.starts, visible.stops, seen)
    if masked == "float":
        added = torch.randn(2, 37, generator=torch.Generator().manual_seed(3))
        visible = Visible(visible.starts, visible.stops, added.masked_fill(~seen, float("-inf")))
    mixtures = [torch.tensor(rows) for rows in ([[True, False, True], [False, True, True]], [[False] * 3, [True] * 3])]
    for routed in mixtures:
        monkeypatch.setattr(routing, "route", lambda scores, threshold, routed=routed: routed)
        expected = restated(given["query"], given["key"], given["value"], routed, seen, added, 0.4, softcap, value)
        for host in (True, False):
            monkeypatch.setattr(routing, "is_eager_cpu", lambda tensor, host=host: host)
            found = routed_decode(
                **given, threshold=0.5, visible=visible, scaling=0.4, softcap=softcap, surrogate_value=value
            )
            assert found.output.shape == (2, 3 * groups, 1, 6)
            assert (found.output.double() - expected).abs().max() < 1e-5
            assert found.routed is routed


@pytest.mark.parametrize("keys", [4095, 4096, 5000])
def test_long_caches_are_attended_to_in_pieces(keys):
    given = inputs(batch=1, keys=keys, groups=3)
    routed = torch.tensor([[False, True, False]])
    ranges = [(7, keys)]
    found = attend_active(
        given["query"], given["key"], given["value"], routed.tolist(), ranges, None,
        scale=0.4, softcap=None, surrogate_value=None,
    )  # fmt: skip
    seen = torch.ones(1, keys, dtype=torch.bool)
    seen[:, :7] = False
    none = torch.zeros(1, keys)
    expected = restated(given["query"], given["key"], given["value"], routed, seen, none, 0.4, None, None)
    assert (found.double() - expected).abs().max() < 1e-5


def test_nothing_that_is_routed_or_unseen_is_read():
    given = inputs(groups=2)
    given["key"][0, 1], given["value"][0, 1] = float("nan"), float("nan")
    given["key"][:, :, 30:], given["value"][:, :, 30:] = float("nan"), float("nan")
    routed = [[False, True, False], [True, False, False]]
    found = attend_active(
        given["query"], given["key"], given["value"], routed, [(0, 30)] * 2, None,
        scale=0.4, softcap=None, surrogate_value=None,
    )  # fmt: skip
    assert torch.isfinite(found).all()
    assert torch.count_nonzero(found[0, 2:4]) == 0


def test_where_no_head_is_routed_there_is_no_answer():
    assert routed_decode(**inputs(), threshold=1.0, visible=everything(2, 37)).output is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    given = inputs(dtype=dtype, keys=300, width=16)
    routed = torch.tensor([[True, False, False]] * 2)
    found = attend_active(
        given["query"], given["key"], given["value"], routed.tolist(), [(0, 300)] * 2, None,
        scale=0.25, softcap=None, surrogate_value=None,
    )  # fmt: skip
    assert found.dtype == dtype
    seen, none = torch.ones(2, 300, dtype=torch.bool), torch.zeros(2, 300)
    expected = restated(given["query"], given["key"], given["value"], routed, seen, none, 0.25, None, None)
    assert (found.double() - expected).abs().max() < 1e-2


def test_a_straight_curve():
    curve = ThresholdCurve(((4000, 0.6), (1000, 0.5), (2000, 0.3)))
    at = {500: 0.5, 1000: 0.5, 1500: 0.4, 2000: 0.3, 3000: 0.45, 4000: 0.6, 9999: 0.6}
    for length, threshold in at.items():
        assert curve.at(length) == pytest.approx(threshold)
    assert torch.allclose(curve.on(torch.tensor(list(at))), torch.tensor(list(at.values())))
    assert ThresholdCurve(((512, 0.4),)).at(9) == 0.4
    assert torch.allclose(ThresholdCurve(((512, 0.4),)).on(torch.tensor([9, 600])), torch.tensor([0.4, 0.4]))


def test_the_papers_curve():
    curve = ThresholdCurve(PAPER, "cubic")
    assert curve.coefficients == pytest.approx((0.2551, -0.5948, 0.3814, 0.5024), abs=1e-4)
    assert max(abs(curve.at(length) - threshold) for length, threshold in PAPER) == pytest.approx(0.0023, abs=1e-4)
    assert curve.at(10**6) == curve.at(131072)
    assert curve.at(100) == curve.at(2048)
    lengths = torch.tensor([100, 2048, 5000, 70000, 131072, 10**6])
    assert torch.allclose(curve.on(lengths), torch.tensor([curve.at(n) for n in lengths.tolist()]), atol=1e-6)
