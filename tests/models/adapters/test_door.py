"""One door: the command line, a study, a benchmark and `Loaded` put the same prompt before the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omnisink import OmnisinkError
from omnisink.cli import options
from omnisink.cli.ask import ask as ask_command
from omnisink.cli.find import find as find_command
from omnisink.evaluation.running.asking import ask as ask_benchmark
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.prompts import prompt_of
from omnisink.models.adapters import base
from omnisink.models.loaded import Loaded
from omnisink.questions.choices import with_choices
from omnisink.questions.items import Item
from omnisink.questions.prompt import Prompt
from omnisink.study.item_runner import item_runner
from tests.models.tiny_checkpoints import BESIDE, CHECKPOINTS

QUESTION = "Which of these is a zebra made of quartz?"
CHOICES = ("bell", "drum")
SYSTEM = "Be brief."


@contextmanager
def first_prompt(loaded: Loaded) -> Iterator[list[Any]]:
    """Keep the token ids of the first forward pass of the block."""
    kept: list[Any] = []

    def keep(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not kept:
            kept.append((kwargs["input_ids"] if "input_ids" in kwargs else args[0]).detach().clone())

    hook = loaded.model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield kept
    finally:
        hook.remove()


@pytest.fixture(params=[*CHECKPOINTS, *BESIDE])
def loaded(request, families, monkeypatch) -> Loaded:
    """Load a family, and let the command line load the same."""
    found: Loaded = families(request.param)
    monkeypatch.setattr(options, "load", lambda *args, **settings: found)
    return found


def by_ask(loaded: Loaded, clip: Path | None, system: str | None) -> None:
    words = [QUESTION] if clip is None else [str(clip), QUESTION]
    ask_command(words, model=loaded.name, choices=list(CHOICES), system=system, max_new_tokens=1, gamma=0.5, json=True)


def by_find(loaded: Loaded, clip: Path | None, system: str | None) -> None:
    asked = with_choices(QUESTION, CHOICES)
    if clip is not None:
        find_command([str(clip), asked], model=loaded.name, system=system, json=True)
        return
    file = Path("question.txt")
    file.write_text(asked)
    find_command(None, model=loaded.name, source=str(file), chat=True, system=system, json=True)


def by_study(loaded: Loaded, clip: Path | None, system: str | None) -> None:
    with item_runner(loaded, Item("q", QUESTION, "B", CHOICES, video=clip, cluster="q")):
        pass


def by_benchmark(loaded: Loaded, clip: Path | None, system: str | None) -> None:
    instance = Instance(
        id="q",
        text=with_choices(QUESTION, CHOICES),
        gold="B",
        answers=("A", "B"),
        parser="letter",
        cluster="q",
        video=clip,
        system=system,
        max_new_tokens=1,
    )
    inputs = loaded.adapter.encode(loaded, [prompt_of(loaded, instance)])
    ask_benchmark(loaded, inputs, [instance], None, "generate")


def by_loaded(loaded: Loaded, clip: Path | None, system: str | None) -> None:
    loaded.ask(QUESTION, video=clip, choices=CHOICES, system=system, max_new_tokens=1)


Door = Callable[[Loaded, Path | None, str | None], None]
DOORS: list[tuple[Door, str | None]] = [
    *((door, None) for door in (by_ask, by_find, by_study, by_benchmark, by_loaded)),
    *((door, SYSTEM) for door in (by_ask, by_find, by_benchmark, by_loaded)),  # An item has no system message.
    (by_ask, ""),
]


@pytest.mark.parametrize("media", [False, True], ids=["text", "video"])
@pytest.mark.parametrize(("door", "system"), DOORS)
def test_every_door_leads_to_the_same_prompt(loaded, clip, door, media, system, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = clip if media else None
    expected = loaded.inputs(QUESTION, video=video, choices=CHOICES, system=system)
    with first_prompt(loaded) as kept:
        door(loaded, video, system)
    assert torch.equal(kept[0], expected["input_ids"])
    text = loaded.tokenizer.decode(kept[0][0])
    assert with_choices(QUESTION, CHOICES) in text
    assert (SYSTEM in text) == (system == SYSTEM)
    own = loaded.adapter.default_system
    assert own is None or (own in text) == (system is None)


@pytest.mark.parametrize("media", [False, True], ids=["text", "video"])
def test_a_template_for_text_alone_is_refused_at_the_door(loaded, clip, media, monkeypatch):
    """A processor that is only a tokenizer has such a template: it would print the parts as a Python list."""
    if not loaded.adapter.has_processor_file:  # Its template is the tokenizer's, for text, and is given text.
        return
    monkeypatch.setattr(loaded.processor, "chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(OmnisinkError, match="is for text only: it prints the parts of a question as a list"):
        loaded.inputs(QUESTION, video=clip if media else None)
    monkeypatch.setattr(loaded.processor, "chat_template", "{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(OmnisinkError, match="leaves out what is asked"):
        loaded.inputs(QUESTION, video=clip if media else None)


def test_a_family_without_an_adapter_is_asked_about_text_by_the_template_that_writes_it(families, monkeypatch):
    from omnisink.models.adapters import registry

    loaded = replace(families("qwen2_5_vl"))
    monkeypatch.setattr(registry, "ADAPTERS", ())
    assert QUESTION in loaded.tokenizer.decode(loaded.inputs(QUESTION)["input_ids"][0])
    monkeypatch.setattr(loaded.processor, "chat_template", "{% for m in messages %}T{{ m.content }}{% endfor %}")
    monkeypatch.setattr(loaded.tokenizer, "chat_template", "{% for m in messages %}T{{ m.content }}{% endfor %}")
    assert loaded.tokenizer.decode(loaded.inputs(QUESTION)["input_ids"][0]) == f"T{QUESTION}"


def test_adapters_know_the_parts_of_a_model_and_not_the_whole():
    folder = Path(base.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if "models.loaded" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("system", [None, "", SYSTEM])
@pytest.mark.parametrize("reply", ["", "The answer is"])
def test_tokens_are_counted_as_they_are_encoded(loaded: Loaded, system: str | None, reply: str) -> None:
    prompt = Prompt(QUESTION, choices=CHOICES, system=system, reply=reply)
    expected = loaded.adapter.encode(loaded, [prompt]).facts[0].prompt_tokens
    assert loaded.adapter.count_tokens(loaded, prompt) == expected
    longer = replace(prompt, question="a zebra " * 3000)
    assert loaded.adapter.count_tokens(loaded, longer) > 20_000, "a prompt that is too long is counted too"
