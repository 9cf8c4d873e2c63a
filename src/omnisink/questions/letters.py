"""The letters of choices: what files and people write in front of them is taken off where every choice has its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omnisink.errors import OmnisinkError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
#: A label: in brackets, or with one of these after it. Behind a number or a small letter with a mark there must be a
#: space, so that "1.5" and "a.m." stay whole; behind a capital there may be none, but "A.M." stays whole too.
_FORM = r"\s*(?:[(\[（]\s*{label}\s*[)\]）][.:]?[ \t]?|{label}\s?[.:)．：）、](?!\w\.){gap})"
#: Only one blank belongs to the label: further blanks belong to the choice.
_GAP, _SPACE = r"[ \t]?", r"(?:[ \t]|$)"


def _form(label: str, gap: str = _SPACE) -> str:
    return _FORM.format(label=label, gap=gap)


def _kinds(count: int) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return the ways of numbering `count` choices, that of benchmarks first: labels, and a pattern for each."""
    letters, numbers = tuple(LETTERS[:count]), tuple(str(i + 1) for i in range(count))
    found = [
        (letters, [_form(a, _GAP) for a in letters]),
        (letters, [f"{_form(a, _GAP)}|{_form(a.lower())}" for a in letters]),
        (numbers, [_form(n) for n in numbers]),
    ]
    if count <= len(_ROMAN):
        small = _ROMAN[:count]
        capital = tuple(r.upper() for r in small)
        found += [(capital, [_form(r) for r in capital]), (small, [_form(r) for r in small])]
    return found


def split_letters(choices: Sequence[str], *, letters_only: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take the letters off choices that have them.

    Parameters
    ----------
    choices : sequence of str
        As they are filed: ``"A. bell"``, ``"(b) bell"``, ``"II) bell"``, ``"3. bell"``, or without anything. A label
        is taken off only where all choices have theirs, of one kind and in order, and not all of them are empty
        without it; so "A. Lincoln" beside "G. Washington" stays.
    letters_only : bool
        Whether only capital letters are labels, as in the files of benchmarks; the texts then keep their blanks.

    Returns
    -------
    tuple of str, tuple of str
        The texts without labels, and the labels, which are empty if there were none.

    Raises
    ------
    OmnisinkError
        If the choices have the right letters in another order, and `letters_only` is false.
    """
    kinds = _kinds(len(choices))[: 1 if letters_only else None] if 0 < len(choices) <= len(LETTERS) else []
    for labels, forms in kinds:
        found = [re.match(form, choice) for form, choice in zip(forms, choices, strict=True)]
        texts = [choice[m.end() :] for m, choice in zip(found, choices, strict=True) if m is not None]
        if len(texts) == len(choices) and any(text.strip() for text in texts):
            return tuple(texts) if letters_only else tuple(text.strip() for text in texts), labels
    if not letters_only:
        _check_order(choices)
    return tuple(choices), ()


def _check_order(choices: Sequence[str]) -> None:
    """Refuse "B. bell", "A. drum": an answer A could be either."""
    form = _form("([A-Za-z])")
    found = [m[1] or m[2] for choice in choices if (m := re.match(form, choice))]
    due = list(LETTERS[: len(choices)])
    carried = [letter.upper() for letter in found]
    if len(carried) == len(choices) and carried != due and sorted(carried) == due:
        raise OmnisinkError(
            f"the choices carry the letters {', '.join(carried)}, and stand in another order: put them in the order "
            "of their letters, or leave the letters out"
        )
