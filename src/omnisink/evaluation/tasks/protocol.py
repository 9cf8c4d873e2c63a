"""How a question is put into words: a protocol is data, and this is what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tasks.rows import KINDS, Row
from omnisink.questions.letters import LETTERS

#: Fields of every text; a task may have further ones.
TEXT_FIELDS = {"question", "options", "options_list", "answers"}
OPTION_FIELDS = {"letter", "text", "filed"}
#: What of a text can lose the white space at its ends: all of it, the question before anything is added to it, or the
#: end of the list of options.
STRIPPED = ("", "text", "question", "options")
#: What may differ between the kinds of questions of one task.
BY_KIND = {"text", "option", "join", "parser", "max_new_tokens", "reply", "suffix", "suffix_unless"}


@dataclass(frozen=True)
class Protocol:
    """A way to ask the questions of a task and to read the answers.

    Attributes
    ----------
    name : str
        As ``"official"``.
    text : str
        Template of what the user says. ``{question}``; ``{options}``, written with `option` and `join`;
        ``{options_list}``, the options of the file as Python prints a list; ``{answers}``, the closed set.
    parser : str
        Name of the function of `omnisink.evaluation.tasks.answers`.
    max_new_tokens : int
        Longest answer.
    system : str or None
        System message; None is the model family's own.
    option : str
        Template of an option, of ``{letter}``, ``{text}`` and ``{filed}``, which is the option as the file has it.
    join : str
        Between options.
    suffix, suffix_unless : str
        A last text, which is left out where the regular expression is found in the question, whatever its case.
    strip : {"", "text", "question", "options"}
        What loses the white space at its ends, as in the benchmark's own program: nothing, the whole text, the
        question, or the end of the list of options.
    reply : str
        What the answer is made to begin with.
    text_first : bool
        Whether the text comes before the media.
    with_sound : str
        Put before the text where the model is given sound.
    source : str
        Where the protocol is from, and where it cannot be followed to the letter.
    kind : str
        What an answer is, where a loader can make questions of several kinds of one row; empty is the loader's own.
    by_kind : mapping of str to mapping
        For tasks whose questions are of several kinds: what differs for each.
    """

    name: str
    text: str
    parser: str
    max_new_tokens: int = 16
    system: str | None = None
    option: str = "{letter}. {text}"
    join: str = "\n"
    suffix: str = ""
    suffix_unless: str = ""
    strip: str = ""
    reply: str = ""
    text_first: bool = False
    with_sound: str = ""
    source: str = ""
    kind: str = ""
    by_kind: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of_kind(self, kind: str) -> Protocol:
        """Return the protocol as it is for one kind of question."""
        return replace(self, by_kind={}, **self.by_kind.get(kind, {}))

    def words(self, row: Row, sound: bool) -> str:
        """Return what the user says, to the letter. What the data hold is never read as a template."""
        letters = zip(LETTERS, row.options, row.filed, strict=False)
        options = self.join.join([self.option.format(letter=a, text=text, filed=filed) for a, text, filed in letters])
        said = self.text.format(
            question=row.question.strip() if self.strip == "question" else row.question,
            options=options.rstrip() if self.strip == "options" else options,
            options_list=repr(list(row.filed)),
            answers=", ".join(row.words),
            **row.extra,
        )
        asks = self.suffix_unless and re.search(self.suffix_unless, row.question, re.IGNORECASE)
        whole = (self.with_sound if sound else "") + said + ("" if asks else self.suffix)
        return whole.strip() if self.strip == "text" else whole


def make_protocol(name: str, given: Mapping[str, Any], parsers: set[str], extra: set[str]) -> Protocol:
    """Check what a task's file says of a protocol, and return it.

    Raises
    ------
    OmnisinkError
        If a key, parser, kind or field of a template is unknown, or a value has the wrong type.
    """
    known = Protocol.__dataclass_fields__.keys() - {"name"}
    if unknown := sorted(given.keys() - known):
        raise OmnisinkError(f"protocol {name}: unknown key {unknown[0]!r}: use some of {', '.join(sorted(known))}")
    if missing := sorted({"text", "parser"} - given.keys()):
        raise OmnisinkError(f"protocol {name}: {missing[0]} is missing")
    for kind, changes in given.get("by_kind", {}).items():
        if kind not in KINDS:
            raise OmnisinkError(f"protocol {name}: unknown kind {kind!r}: use some of {', '.join(KINDS)}")
        if unknown := sorted(changes.keys() - BY_KIND):
            raise OmnisinkError(f"protocol {name}: {unknown[0]!r} cannot differ between the kinds of questions")
    for part in (given, *given.get("by_kind", {}).values()):
        for key, value in part.items():
            wanted = {"max_new_tokens": int, "text_first": bool, "by_kind": dict}.get(key, str)
            if type(value) is not wanted:
                raise OmnisinkError(
                    f"protocol {name}: {key} is of the wrong type: must be {wanted.__name__}, got {value!r}"
                )
        if part.get("parser", given["parser"]) not in parsers:
            raise OmnisinkError(
                f"protocol {name}: unknown parser {part['parser']!r}: use {', '.join(sorted(parsers))}"
            )
        _check_template(name, part.get("text", ""), TEXT_FIELDS | extra)
        _check_template(name, part.get("option", ""), OPTION_FIELDS)
        _check_pattern(name, part.get("suffix_unless", ""))
    if given.get("kind", "") not in ("", *KINDS):
        raise OmnisinkError(f"protocol {name}: kind must be one of {', '.join(KINDS)}, got {given['kind']!r}")
    if given.get("strip", "") not in STRIPPED:
        raise OmnisinkError(f"protocol {name}: strip must be one of {', '.join(STRIPPED[1:])}, got {given['strip']!r}")
    if given.get("max_new_tokens", 1) < 1:
        raise OmnisinkError(f"protocol {name}: max_new_tokens must be positive")
    return Protocol(name=name, **given)


def _check_template(name: str, template: str, fields: set[str]) -> None:
    try:
        used = {used for _, used, _, _ in Formatter().parse(template) if used is not None}
    except ValueError as error:
        raise OmnisinkError(f"protocol {name}: not a template: {error}: {template!r}") from None
    if unknown := sorted(used - fields):
        raise OmnisinkError(
            f"protocol {name}: unknown field {unknown[0]!r} in a template: use {', '.join(sorted(fields))}"
        )


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise OmnisinkError(f"protocol {name}: not a regular expression: {error}: {pattern!r}") from None
