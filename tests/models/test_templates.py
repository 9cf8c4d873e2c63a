"""Chat templates of checkpoints: what they write, what they must not lose, and what they may take."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from omnisink import OmnisinkError, load_model
from omnisink.models import smolomni, template_limits
from omnisink.models.parts import ModelParts
from omnisink.models.template_limits import is_plain, write_limited
from omnisink.models.templates import write_parts, write_text
from tests.models.tiny_parts import template

#: In the forms of well-known checkpoints, shortened.
ORDINARY = [
    smolomni.CHAT_TEMPLATE,
    template("<v>", "<i>", "<a>"),
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>' }}{% endfor %}",
    # A system message of its own, turns that are checked, and pictures before text.
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}"
    "{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns') }}"
    "{% endif %}{% for p in m['content'] | selectattr('type', 'equalto', 'text') %}{{ p['text'] }}{% endfor %}"
    "{% endfor %}",
    # A look from behind, thoughts that are taken out, tools as JSON.
    "{% set ns = namespace(last=messages|length - 1) %}{% for m in messages[::-1] %}"
    "{% set index = (messages|length - 1) - loop.index0 %}{% if m.role == 'user' %}{% set ns.last = index %}"
    "{% endif %}{% endfor %}{% for m in messages %}{% set content = m.content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{{ content }}"
    "{% for call in m.tool_calls %}{{ call.arguments | tojson }}{% endfor %}{% endfor %}",
    # A macro for the content.
    "{% macro write(content) %}{% if content is string %}{{ content }}{% else %}{% for p in content %}{{ p.text }}"
    "{% endfor %}{% endif %}{% endmacro %}{% for m in messages %}{{ write(m.content) | trim }}{% endfor %}",
    "{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}",
]
#: Harmless in themselves, but of forms that could be used for harm.
WATCHED = [
    "{% for i in range(3) %}{{ messages[0].content }}{% endfor %}",
    "{{ '-' * 3 }}{{ messages[0].content }}",
    "{% macro m(n) %}{% if n > 0 %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}{{ messages[0].content }}",
    "{% set t = messages[0].content %}{% set t = t ~ t %}{{ t }}",
    "{% set ns = namespace(get=range) %}{{ ns.get(3) | list }}{{ messages[0].content }}",
    "{{ 'x'.center(9) }}{{ messages[0].content }}",
    "{{ '%5d' % 1 }}{{ messages[0].content }}",
    "{% set t = messages[0].content %}{% for a in t %}{% for b in t %}{% endfor %}{% endfor %}{{ t }}",
    "{% set x = ['a'] %}{% set x = [x] ~ '' %}{{ messages[0].content }}",
    "{% set t = messages[0].content %}{% set t = t | join('ab') %}{{ messages[0].content }}",
]
_LOOP = "{% for a in x %}" * 12 + "{% endfor %}" * 12
HANGS = [
    "{% set x = [1, 2, 3, 4, 5, 6, 7, 8] %}" + _LOOP,
    "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% set n = 10 ** (10 ** 10) %}",
]
BOMBS = [
    "{{ 'a' * 3000000000 }}",
    "{{ 'a'.center(3000000000) }}",
    "{{ '%3000000000d' % 1 }}",
    "{% set ns = namespace(x='abcdefgh') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{{ [0] * 900000000 }}",
]


class Writer:
    """A tokenizer, as far as chat templates go: transformers' own code writes."""

    def __init__(self, chat_template: str) -> None:
        self.chat_template = chat_template

    def apply_chat_template(self, messages, *, add_generation_prompt, tokenize, chat_template=None):
        from transformers.utils.chat_template_utils import render_jinja_template

        written, _ = render_jinja_template(
            [messages], chat_template=chat_template or self.chat_template, add_generation_prompt=add_generation_prompt
        )
        return written[0]


def said(text: str = "Why?", system: str | None = None) -> list[dict]:
    texts = [("system", system), ("user", text)] if system else [("user", text)]
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts]


def parts(chat_template: str, processor: bool = False) -> ModelParts:
    writer = Writer(chat_template)
    return ModelParts(SimpleNamespace(), writer, writer if processor else None, "mine")


@pytest.mark.parametrize("source", ORDINARY)
def test_ordinary_templates_are_plain(source):
    assert is_plain(source)


@pytest.mark.parametrize("source", WATCHED)
def test_others_are_written_under_limits_and_are_the_same(source):
    assert not is_plain(source)
    expected = Writer(source).apply_chat_template(
        [{"role": "user", "content": "Why?"}], add_generation_prompt=True, tokenize=False
    )
    assert write_text(parts(source), said()) == expected
    assert "Why?" in expected


@pytest.mark.parametrize("source", [*HANGS, *BOMBS])
def test_harm_is_stopped_in_one_line(source, monkeypatch):
    monkeypatch.setattr(template_limits, "SECONDS", 1)
    begin = time.perf_counter()
    with pytest.raises(OmnisinkError, match="the chat template of mine refuses these messages: ") as error:
        write_text(parts(source + "{{ messages[0].content }}"), said())
    assert "\n" not in str(error.value)
    assert time.perf_counter() - begin < 60


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ 1/0 }}", "division by zero"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% include 'other' %}", "no loader for this environment"),
        ("{{ messages[0]", "unexpected"),
        ("{{ raise_exception('no\nturns') }}", "no turns"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{{ messages[0].content.nothing() }}", "nothing"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    ],
)
def test_whatever_a_template_raises_is_one_line(source, says):
    with pytest.raises(OmnisinkError, match=f"the chat template of mine refuses these messages: .*{says}") as error:
        write_text(parts(source), said())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source",
    ["{{ messages[-1].content }}", "{{ messages[-1].content | tojson }}", "{{ messages[-1]['content'] ~ '' }}"],
)
def test_a_template_that_prints_the_parts_is_refused_by_name(source):
    with pytest.raises(OmnisinkError, match="mine is for text only: it prints the parts of a question as a list"):
        write_parts(parts(source, processor=True), said())
    assert "Why?" in write_text(parts(source), said()), "for a text model it is the right one"


def test_a_question_that_quotes_a_list_of_parts_is_no_such_template():
    question = "What is [{'type': 'text'}] in Python?"
    assert question in write_parts(parts(ORDINARY[1], processor=True), said(question))


@pytest.mark.parametrize(
    "source", ["{{ messages[0].role }}", "{% for c in messages[0].content %}{{ c.text }}{% endfor %}"]
)
def test_a_template_that_leaves_the_question_out_is_refused(source):
    with pytest.raises(OmnisinkError, match="leaves out what is asked: 'Why[?]' is not in the prompt"):
        write_text(parts(source), said())
    with pytest.raises(OmnisinkError, match="leaves out what is asked: 'Be brief.'"):
        write_text(parts("{{ messages[-1].content }}"), said(system="Be brief."))


def test_without_any_template_media_cannot_be_asked_about():
    with pytest.raises(OmnisinkError, match="no chat template for questions about media"):
        write_parts(parts("", processor=True), said())
    lent = parts(ORDINARY[1], processor=True)
    lent.processor = Writer("")
    assert "Why?" in write_parts(lent, said()), "the tokenizer's is taken where the processor has none"


def test_the_child_ends_and_leaves_nothing_open():
    before, others = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0, _children()
    assert write_limited(lambda: "x" * 3_000_000, "mine") == "x" * 3_000_000
    with pytest.raises(OmnisinkError, match="it writes 60,000,000 characters"):
        write_limited(lambda: "x" * 60_000_000, "mine")
    with pytest.raises(OmnisinkError, match="ValueError"):
        write_limited(_fails, "mine")
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
    assert _children() <= others


def _children() -> set[str]:
    """Return the processes that this one has started and not taken leave of; others in this process may have some."""
    return {child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()}


def _fails() -> str:
    raise ValueError


def test_a_model_folder_with_a_hostile_template_is_refused(llama_folder):
    loaded = load_model(llama_folder)
    loaded.tokenizer.chat_template = "{{ 'a' * 3000000000 }}{{ messages[0].content }}"
    with pytest.raises(
        OmnisinkError, match=f"the chat template of {llama_folder} refuses these messages: it takes more"
    ):
        loaded.ask("hello")
