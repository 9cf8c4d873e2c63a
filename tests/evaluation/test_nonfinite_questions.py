"""A question whose numbers are not finite is an error of that question, under every method and without one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from omnisink import OmnisinkError, OutRo, load_model
from omnisink.evaluation.running.run import Settings, run
from omnisink.methods.registry import parse_methods
from omnisink.results.records import read_records

METHODS = parse_methods("baseline,outro:gamma=0.5,outro:relax")


@pytest.fixture(scope="module")
def damaged(llama_folder):
    """Load the tiny Llama with a NaN in the embedding of ``Q``, which a single question has."""
    loaded = load_model(str(llama_folder), device="cpu", dtype="float32")
    with torch.no_grad():
        loaded.model.model.embed_tokens.weight[loaded.tokenizer.convert_tokens_to_ids("Q"), 3] = float("nan")
    return loaded


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("score", ["generate", "likelihood"])
def test_the_others_of_its_batch_are_answered(damaged, asked, score, share, tmp_path):
    asked = [a for a in asked if a.parser == "letter"]
    asked = [dataclasses.replace(a, text="Q " + a.text) if a.id == "q5" else a for a in asked]
    run(damaged, asked, Settings(METHODS, score, batch_size=4, share=share), tmp_path)
    records = read_records(tmp_path)
    assert len(records) == len(asked) * len(METHODS)
    for record in records:
        if record["id"] == "q5":
            assert "not finite" in record["error"]
            assert "embed_tokens.weight" in record["error"]
            assert record["right"] is record["text"] is record["parsed"] is None
        else:
            assert record["error"] is None


@pytest.mark.parametrize("method", [None, OutRo(gamma=0.5)], ids=["baseline", "OutRo"])
def test_asked_in_python_it_is_an_error(damaged, method):
    with pytest.raises(OmnisinkError, match="not finite"):
        damaged.ask("Q is it?", method=method)
    assert damaged.ask("is it?", method=method, max_new_tokens=2).new_tokens > 0
