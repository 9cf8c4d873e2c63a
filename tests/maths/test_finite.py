"""Non-finite activations are found from magnitudes alone, padding apart; settings that overflow are refused."""

from __future__ import annotations

import math

import pytest
import torch

from omnisink import OutRo
from omnisink.maths.bounds import MAX_GAMMA, MAX_TAU, MIN_TAU, check_gamma, check_tau, check_threshold
from omnisink.maths.finite import nonfinite_by_layer
from omnisink.maths.magnitude import any_nonfinite, nonfinite_tokens, token_magnitude
from omnisink.maths.rotation import rotate
from omnisink.methods.criteria import MassiveActivation, SinkDimension

BAD = {"nan": math.nan, "inf": math.inf, "minus inf": -math.inf}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("value", BAD)
def test_a_token_with_one_bad_channel_is_marked(value, dtype):
    hidden = torch.randn(2, 5, 8).to(dtype)
    hidden[1, 3, 6] = BAD[value]
    expected = torch.zeros(2, 5, dtype=torch.bool)
    expected[1, 3] = True
    assert torch.equal(nonfinite_tokens(token_magnitude(hidden)), expected)
    assert bool(any_nonfinite(hidden))
    assert not bool(any_nonfinite(hidden, ~expected))


def test_the_largest_number_of_a_dtype_is_finite():
    hidden = torch.full((1, 2, 3), torch.finfo(torch.float16).max, dtype=torch.float16)
    assert not bool(any_nonfinite(hidden))


def test_layers_are_told_apart_by_what_they_hold():
    fine, nan, inf = torch.ones(2, 4), torch.ones(2, 4), torch.ones(2, 4)
    nan[0, 1], inf[1, 2] = math.nan, math.inf
    found = nonfinite_by_layer([fine, nan, inf, torch.where(nan.isnan(), nan, inf)])
    assert [flags.tolist() for flags in found] == [[False, True, False, True], [False, False, True, True]]
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[0, 1] = False
    found = nonfinite_by_layer([fine, nan, inf], mask)
    assert [flags.tolist() for flags in found] == [[False, False, False], [False, False, True]]
    assert nonfinite_by_layer([])[0].shape == (0,)


@pytest.mark.parametrize(
    "gamma", [1e308, 1e38, -3.4e38, MAX_GAMMA * 1.01, math.inf, math.nan, "3", None, True, 10**400]
)
def test_a_strength_that_overflows_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma must be"):
        OutRo(gamma=gamma)
    with pytest.raises(ValueError, match="gamma must be"):
        check_gamma(gamma)


@pytest.mark.parametrize("tau", [0, -1.0, 1e-310, MIN_TAU / 2, MAX_TAU * 2, math.inf, math.nan, "1", True, 10**400])
def test_a_temperature_that_overflows_is_refused(tau):
    with pytest.raises(ValueError, match="tau must"):
        OutRo(tau=tau)
    with pytest.raises(ValueError, match="tau must"):
        check_tau(tau)


@pytest.mark.parametrize("threshold", [0, -1.0, 1e308, math.inf, math.nan, "100", None])
def test_a_threshold_that_overflows_is_refused(threshold):
    for make in (
        lambda: OutRo(min_activation=threshold),
        lambda: MassiveActivation(median_ratio=threshold),
        lambda: SinkDimension((1,), threshold=threshold),
        lambda: check_threshold("limit", threshold),
    ):
        with pytest.raises(ValueError, match="must be"):
            make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gamma", [MAX_GAMMA, -MAX_GAMMA])
@pytest.mark.parametrize("tau", [MIN_TAU, MAX_TAU])
def test_what_is_allowed_does_not_overflow(gamma, tau, dtype):
    """Head outputs as large as the dtype's tokens get, beside small ones and zero."""
    output = torch.randn(1, 6, 2, 4)
    output[:, 1] *= 1e4
    output[:, 2] *= 1e-6
    output[:, 3] = 0
    output = output.to(dtype)
    length = output.float().norm(dim=-1)
    turned = rotate(output.clone(), torch.nn.functional.normalize(torch.randn(1, 2, 4), dim=-1), gamma=gamma, tau=tau)
    assert turned.isfinite().all()
    assert torch.allclose(turned.float().norm(dim=-1), length, rtol=0.02, atol=1e-6)
