"""From what a model said to an answer: a letter, or yes or no, or nothing where it names two or none."""

from __future__ import annotations

import re

from omnisink.questions.letters import LETTERS

_AND = r"\b(?:or|and|nor|but|versus|vs)\b"
_MAYBE = r"(?:\b(?:maybe|perhaps|possibly|probably|also|else|even|rather|then|not)\b[\s,]*)*"
#: What stands between two answers that are both named: "A, B", "A (or B)", "A/B", "yes and no", "A, possibly B".
_BETWEEN = rf"[\s,;/|&+.:!?()\[\]\-–—]*(?:{_AND}[\s,;/|&+.:]*)?{_MAYBE}[(\[]?"
#: The same, where no mark but a word or a slash says so: what follows need not end there.
_JOINED = rf"\s*(?:[/|&+]|[,(]?\s*{_AND})\s*{_MAYBE}[(\[]?"
#: What may follow a letter that is an answer. "A bell" is an article and "I think" a pronoun, so that a word after
#: these two says that no letter was meant, unless it is one that follows a name.
_ENDS = r"\s*(?:$|[.,:;!()\[\]\n/|&+\-–—]|\b(?:or|and|nor|is|because|since|as)\b)"
_DENIED = re.compile(
    r"(?:\bnot|n't|\bneither|\bnor|\bnever|\bexcept|\bcannot be)\s+(?:the\s+)?(?:option|choice|letter)?\s*$",
    re.IGNORECASE,
)
_WRONG = r"[)\]]?\s*,?\s*(?:is|are|was|would be)?\s*(?:\bnot\b|\w+n't\b|\bwrong\b|\bincorrect\b|\bfalse\b|\bout\b)"


def parse_letter(answer: str, count: int) -> str | None:
    """Return the letter that an answer names, or None: it is never guessed.

    Parameters
    ----------
    answer : str
        Answer of the model.
    count : int
        Number of choices.

    Returns
    -------
    str or None
        The letter where the answer is one, begins with one, or holds exactly one in brackets or after "answer is".
        None where it names two ("A or B", "A/B", "neither A nor B"), denies the one it names, or where the letter is
        an article or a pronoun ("A bell.", "I think so").
    """
    allowed = LETTERS[:count]
    if not allowed:
        return None
    said = re.sub(r"[*_`\"“”]", "", answer).strip()
    found: list[tuple[str, int, int]] = []
    if (first := re.match(rf"[(\[]?([{allowed}])[)\]]?(?![\w'’]|-\w)", said)) and _is_name(said, first):
        found.append((first[1], first.start(), first.end()))
    for form in (
        rf"[(\[]([{allowed}])[)\]]",
        rf"(?<![\w'’(\[])([{allowed}])\)",
        rf"(?i:\b(?:answer|option|choice)(?:\s+is)?:?)\s+[(\[]?([{allowed}])[)\]]?(?![\w'’]|-\w)",
    ):
        found += [(m[1], m.start(), m.end()) for m in re.finditer(form, said) if _is_name(said, m)]
    named = {letter for letter, _, _ in found}
    if len(named) != 1:
        return None
    for letter, start, end in found:
        if _DENIED.search(said[:start]) or re.match(_WRONG, said[end:]) or said[end : end + 1] == "?":
            return None
        if _second(said, end, letter, allowed):
            return None
    return named.pop()


def _is_name(said: str, found: re.Match[str]) -> bool:
    """Tell a letter that names a choice from an article or a pronoun."""
    bracketed = said[found.end(1) : found.end(1) + 1] in (")", "]")
    return bracketed or found[1] not in "AI" or re.match(_ENDS, said[found.end(1) :]) is not None


def _second(said: str, end: int, letter: str, allowed: str) -> bool:
    """Tell whether another letter is joined to one: "A or B", "A, B". In "B. A drum" there is an article."""
    rest = said[end:]
    if (m := re.match(rf"{_JOINED}([{allowed}])(?![\w'’]|-\w)", rest)) and m[1] != letter:
        return True
    m = re.match(rf"{_BETWEEN}([{allowed}])(?![\w'’]|-\w)\s*(?:$|[.,:;!?)\]\n/|&+\-–—])", rest)
    return m is not None and m[1] != letter


def parse_yes_no(answer: str) -> str | None:
    """Return ``"yes"`` or ``"no"`` where it is the first word and the other does not follow it; None else.

    "Yes or no", "yes/no", "No. Yes." and "Yes and no" name both, and are neither.
    """
    first = re.match(r"\s*(yes|no)\b(?![-'’])", answer, re.IGNORECASE)
    if first is None:
        return None
    said, rest = first[1].lower(), answer[first.end() :]
    other = "no" if said == "yes" else "yes"
    if re.match(rf"{_BETWEEN}{other}\b", rest, re.IGNORECASE):
        return None
    # A later sentence that says the other: "Yes, there is. No, there is none."
    if re.search(rf"[.;!?\n]\s*{other}\b\s*(?:[.,;!?]|$)", rest, re.IGNORECASE):
        return None
    return said
