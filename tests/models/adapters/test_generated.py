"""Answers of models whose `generate` returns what it likes: the prompt too, new tokens alone, nothing, several."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from omnisink import OmnisinkError, OutRo
from omnisink.evaluation.running.asking import ask as ask_benchmark
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.prompts import prompt_of
from omnisink.models.adapters.generated import new_tokens

ASKED = ["What is seen?", "Which of the things in this clip is seen first?"]
PROMPT = torch.tensor([[5, 6, 7], [0, 8, 9]])


@pytest.fixture
def omni(families):
    return families("qwen2_5_omni")


def returns_new_tokens_alone(loaded, monkeypatch):
    """Let `generate` do as models with code of their own do: they give it embeddings, and get what follows."""
    whole = loaded.model.generate

    def generate(**options):
        return whole(**options)[:, options["input_ids"].shape[1] :]

    monkeypatch.setattr(loaded.model, "generate", generate)


def test_new_tokens_alone_are_the_same_answer(omni, clip, monkeypatch):
    asked = {"video": clip, "max_new_tokens": 5}
    expected = [omni.ask(ASKED[0], **asked), *omni.ask(ASKED, method=OutRo(gamma=0.5), **asked)]
    assert all(1 <= one.new_tokens <= 5 for one in expected)
    assert any(one.text for one in expected)
    returns_new_tokens_alone(omni, monkeypatch)
    found = [omni.ask(ASKED[0], **asked), *omni.ask(ASKED, method=OutRo(gamma=0.5), **asked)]
    assert [(a.text, a.new_tokens) for a in found] == [(a.text, a.new_tokens) for a in expected]


def test_a_long_answer_after_a_short_prompt_is_whole(omni, monkeypatch):
    """More new tokens than the prompt has: cutting by number would take the head of the answer."""
    asked = {"system": "", "max_new_tokens": 60}
    expected = omni.ask("?", **asked)
    assert omni.inputs("?", system="")["input_ids"].shape[1] < 60
    returns_new_tokens_alone(omni, monkeypatch)
    assert omni.ask("?", **asked).text == expected.text


def test_a_benchmark_scores_no_answer_of_no_tokens(omni, monkeypatch):
    instance = Instance(id="q", text="Why?", gold="B", answers=("A", "B"), parser="letter", cluster="q")
    inputs = omni.adapter.encode(omni, [prompt_of(omni, instance)])
    monkeypatch.setattr(omni.model, "generate", lambda **options: options["input_ids"])
    for ask in (lambda: ask_benchmark(omni, inputs, [instance], None, "generate"), lambda: omni.ask("Why?")):
        with pytest.raises(OmnisinkError, match="made no token at all"):
            ask()


def test_an_answer_that_ends_at_once_is_an_answer(omni, monkeypatch):
    end = omni.model.generation_config.eos_token_id

    def ends(**options):
        return torch.cat([options["input_ids"], torch.full((len(options["input_ids"]), 1), end)], dim=1)

    monkeypatch.setattr(omni.model, "generate", ends)
    said = omni.ask("Why?", choices=["red", "blue"])
    assert (said.text, said.choice, said.new_tokens) == ("", None, 1)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (torch.zeros(2, 0, dtype=torch.long), "made no token at all"),
        (PROMPT, "made no token at all"),
        (torch.zeros(6, 4, dtype=torch.long), r"returned 6 for 2: leave num_return_sequences out"),
        (torch.ones(2, 9, dtype=torch.long), "returned 9 tokens where 4 were asked for"),
        ((["text"], None), "returned tuple, not token ids"),
        ("text", "returned str, not token ids"),
    ],
)
def test_what_cannot_be_told_is_refused(returned, says):
    with pytest.raises(OmnisinkError, match=says):
        new_tokens(returned, PROMPT, 4)


@pytest.mark.parametrize("wrap", [lambda ids: ids, lambda ids: SimpleNamespace(sequences=ids)])
def test_the_prompt_is_cut_only_where_it_stands(wrap):
    answer = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    assert torch.equal(new_tokens(wrap(torch.cat([PROMPT, answer], dim=1)), PROMPT, 4), answer)
    assert torch.equal(new_tokens(wrap(answer), PROMPT, 4), answer)
    assert torch.equal(new_tokens(wrap(answer[:, :2]), PROMPT, 4), answer[:, :2])


def test_beams_are_one_answer_and_several_sequences_are_refused(omni):
    beams = omni.ask(ASKED, num_beams=3, max_new_tokens=4)
    assert len(beams) == 2
    inputs = omni.inputs(ASKED)
    with torch.inference_mode():
        made = omni.model.generate(**inputs, num_beams=3, max_new_tokens=4, do_sample=False)
    new = made[:, inputs["input_ids"].shape[1] :]
    assert [b.text for b in beams] == [omni.tokenizer.decode(row, skip_special_tokens=True).strip() for row in new]
    with pytest.raises(OmnisinkError, match="one answer is given to a question"):
        omni.ask("Why?", num_beams=3, num_return_sequences=3, max_new_tokens=2)


def test_a_dictionary_of_generate_and_a_streamer_change_nothing(omni):
    plain = omni.ask("Why?", max_new_tokens=4)
    assert omni.ask("Why?", max_new_tokens=4, return_dict_in_generate=True).text == plain.text
    seen: list[int] = []

    class Streamer:
        def put(self, tokens):
            seen.extend(tokens.reshape(-1).tolist())

        def end(self):
            seen.append(-1)

    assert omni.ask("Why?", max_new_tokens=4, streamer=Streamer()).text == plain.text
    assert seen[-1] == -1
    assert len(seen) == omni.inputs("Why?")["input_ids"].shape[1] + plain.new_tokens + 1


def test_sampling_keeps_the_checkpoints_own_temperature(omni, monkeypatch):
    given = {}
    whole = omni.model.generate
    monkeypatch.setattr(omni.model, "generate", lambda **options: given.update(options) or whole(**options))
    omni.ask("Why?", max_new_tokens=1, do_sample=True)
    assert not {"temperature", "top_p", "top_k"} & given.keys()
    omni.ask("Why?", max_new_tokens=1)
    assert given["do_sample"] is False
    assert given["temperature"] is None
