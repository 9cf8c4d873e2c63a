"""Rows that are odd: official files have some, and every official program does something with them.

What a task does with each kind stands in its file, under ``odd_rows``; `DEFAULTS` has it for those that are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omnisink.errors import OmnisinkError

#: What can be done with each kind. ``refuse``: the row is left out and told as an error of the data. ``leave_out``: it
#: is no question of the benchmark. Everything else keeps it, and says how.
RULES: dict[str, tuple[str, ...]] = {
    "repeated_id": ("refuse", "leave_out", "keep"),
    "one_option": ("refuse", "leave_out", "keep"),
    "blank_question": ("refuse", "leave_out", "keep"),
    "answer_not_among_options": ("refuse", "leave_out", "keep"),
    "answer_of_several_options": ("refuse", "leave_out", "first", "last"),
    "answer_is_blank_option": ("refuse", "leave_out", "keep"),
}
DEFAULTS = dict.fromkeys(RULES, "refuse") | {
    "answer_of_several_options": "leave_out",
    "answer_is_blank_option": "leave_out",
}
#: What is said of such rows, after their number.
WORDS = {
    "repeated_id": "whose id was used before, and which get a number,",
    "one_option": "with one option only",
    "blank_question": "without the text of a question",
    "answer_not_among_options": "whose right answer is none of the options, so that no reply is right,",
    "answer_of_several_options": "whose right answer is the text of several options, of which the {rule} is right,",
    "answer_is_blank_option": "whose right answer is a blank option",
}
_LEFT_OUT = {
    "answer_of_several_options": "the right answer is the text of several options",
    "answer_is_blank_option": "the right answer is a blank option",
    "repeated_id": "the id was used before",
    "one_option": "there is one option only",
    "blank_question": "there is no text of a question",
    "answer_not_among_options": "the right answer is none of the options",
}


class LeftOutError(OmnisinkError):
    """Raised inside a loader for a row that is to be left out."""


@dataclass
class OddRows:
    """What a task does with odd rows, and what was odd about the row that is being read.

    Attributes
    ----------
    rules : mapping of str to str
        For kinds of `RULES`, one of what can be done.
    met : list of str
        Kinds that the row has and is kept with; whoever makes the row takes them.
    """

    rules: Mapping[str, str] = field(default_factory=dict)
    met: list[str] = field(default_factory=list)

    def rule(self, kind: str) -> str:
        """Return what is done with a kind of row."""
        return self.rules.get(kind, DEFAULTS[kind])

    def meet(self, kind: str, what: str) -> str:
        """Note that the row is odd in this way, and return the rule under which it is kept.

        Raises
        ------
        LeftOutError
            If such rows are left out.
        OmnisinkError
            If they are refused; the message is `what`.
        """
        rule = self.rule(kind)
        if rule == "refuse":
            raise OmnisinkError(what)
        if rule == "leave_out":
            raise LeftOutError(_LEFT_OUT[kind])
        self.met.append(kind)
        return rule

    def taken(self) -> tuple[str, ...]:
        """Return what was odd, and forget it."""
        found, self.met = tuple(dict.fromkeys(self.met)), []
        return found


def check_rules(given: Mapping[str, object]) -> None:
    """Refuse kinds and rules that are not known; an `OmnisinkError` names those there are."""
    for kind, rule in given.items():
        if kind not in RULES:
            raise OmnisinkError(f"odd_rows: unknown kind {kind!r}: use some of {', '.join(RULES)}")
        if rule not in RULES[kind]:
            raise OmnisinkError(f"odd_rows: {kind} must be one of {', '.join(RULES[kind])}, got {rule!r}")
