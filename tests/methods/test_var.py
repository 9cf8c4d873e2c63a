"""What VAR moves: against the released rule on random maps, and its settings in both conventions."""

from __future__ import annotations

import pytest
import torch

from omnisink.maths.sets import difference, give, set_shares
from omnisink.methods.criteria import Positions, SinkDimension
from omnisink.methods.registry import parse_method
from omnisink.methods.var import VAR
from tests.methods.reference_edits import run
from tests.methods.weight_cases import SINKS, on, spanned
from tests.reference_outro import tiny_llama


@pytest.mark.parametrize("p", [0.0, 0.4, 0.6, 1.0])
def test_the_sets_give_what_redistributing_a_map_gives(p):
    """A map is edited weight by weight, as the release does, and its rows still sum to one."""
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, n, 19, 8, generator=generator) for n in (4, 2, 2))
    image = torch.zeros(19, dtype=torch.bool)
    image[4:13] = True
    sinks = torch.zeros(19, dtype=torch.bool)
    sinks[[0, 5, 11]] = True
    triangle = torch.ones(19, 19, dtype=torch.bool).tril()
    scores = (query.double() @ key.double().repeat_interleave(2, dim=1).mT / 8**0.5).masked_fill(~triangle, -torch.inf)
    weights = scores.softmax(dim=-1)[:, :, 13:]
    new = weights.clone()
    new[..., sinks] *= 1 - p
    freed = (weights - new).sum(dim=-1, keepdim=True)
    rest = weights[..., image & ~sinks]
    new[..., image & ~sinks] += freed * rest / rest.sum(dim=-1, keepdim=True)
    assert (new.sum(dim=-1) - 1).abs().max() < 1e-12
    expected = new @ value.double().repeat_interleave(2, dim=1)
    marks = torch.stack([sinks & image, sinks & ~image, image & ~sinks])[None]
    shares = set_shares(query[:, :, 13:], key, value, marks, lambda rows: triangle[None, None, 13:][:, :, rows])
    plain = (weights @ value.double().repeat_interleave(2, dim=1)).float()
    factors = give(shares, torch.tensor([1 - p, 1 - p, 1.0]), 2)
    assert (plain + difference(shares, factors) - expected).abs().max() < 1e-5
    assert p or torch.equal(plain + difference(shares, factors), plain)


def test_the_release_has_settings_of_its_own():
    release = parse_method("var:release")
    assert (release.p, release.rho, release.stop) == (1 - 0.6, 1 - 0.5, None)
    assert (VAR().p, VAR().rho, VAR().stop) == (0.6, 0.8, -1)
    assert parse_method("var:hallucination").rho == 0.5
    assert parse_method("var:vision-centric").rho == 0.9
    assert parse_method("var:llava-1.5-7b").criterion == SinkDimension((1415, 2533), 20.0)
    assert parse_method("var:gaseraser:donated=0.2") == VAR(donors="text", start=0, stop=16, donated=0.2)
    assert parse_method("var:modalities=[image]:layers=[2,3]") == VAR(modalities=("image",), layers=(2, 3))


@pytest.mark.parametrize("modalities", [("image",), ("video",), ("image", "video")])
def test_a_setting_says_what_counts_as_an_image(modalities):
    model, ids = tiny_llama(), spanned()
    bare = run(model, ids)
    with on(VAR(Positions(SINKS), least=0.15, rho=0.5, modalities=modalities), model, {"input_ids": ids}) as trace:
        found = run(model, ids)
    assert torch.equal(found, bare) == (modalities == ("video",))
    assert bool(trace.skipped_layers) == (modalities == ("video",))


def test_layers_without_a_sink_among_the_image_tokens_are_reported():
    model, ids = tiny_llama(), spanned()
    with on(VAR(Positions((0, 12))), model, {"input_ids": ids}) as trace:
        run(model, ids)
    assert trace.skipped_layers == dict.fromkeys((2, 3, 4), "no image token is a sink")
