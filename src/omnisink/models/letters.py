"""The letters of choices: what files and people write in front of them is taken off where every choice has its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omnisink.errors import OmnisinkError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
#: A label: bracketed, or with one of these after it. Behind a number or a small letter there must be a space, so that
#: "1.5" and "a.m." stay whole; behind a capital there may be none, but "A.M." stays whole too.
_FORM = r"\s*(?:[(\[（]{label}[)\]）]|{label}[.:)．：）、])(?!\w\.){gap}"
#: One blank alone belongs to the label: what a choice begins with after it is the choice's own.
_GAP, _SPACE = r"[ \t]?", r"(?:[ \t]|$)"


def _labels(count: int) -> list[tuple[list[str], str]]:
    """Return the ways of numbering so many choices, and what must follow a label of each."""
    letters = list(LETTERS[:count])
    found = [(letters, _GAP), ([a.lower() for a in letters], _SPACE), ([str(i + 1) for i in range(count)], _SPACE)]
    if count <= len(_ROMAN):
        roman = list(_ROMAN[:count])
        found += [([r.upper() for r in roman], _SPACE), (roman, _SPACE)]
    return found


def split_letters(choices: Sequence[str], *, letters_alone: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take the letters off choices that have them.

    Parameters
    ----------
    choices : sequence of str
        As they are filed: ``"A. bell"``, ``"(b) bell"``, ``"II) bell"``, ``"3. bell"``, or without anything. A label
        is taken off only where all choices have theirs, of one kind and in order, and not all of them are empty
        without it; so "A. Lincoln" beside "G. Washington" stays.
    letters_alone : bool
        Whether capital letters alone are labels, as in the files of benchmarks, whose texts then keep their blanks.

    Returns
    -------
    tuple of str, tuple of str
        The texts alone, and the labels, which are empty where there were none.

    Raises
    ------
    OmnisinkError
        If the choices have the letters of so many choices in another order, and letters are not alone looked for.
    """
    kinds = _labels(len(choices))[: 1 if letters_alone else None] if 0 < len(choices) <= len(LETTERS) else []
    for labels, gap in kinds:
        forms = [_FORM.format(label=re.escape(label), gap=gap) for label in labels]
        found = [re.match(form, choice) for form, choice in zip(forms, choices, strict=True)]
        texts = [choice[m.end() :] for m, choice in zip(found, choices, strict=True) if m is not None]
        if len(texts) == len(choices) and any(text.strip() for text in texts):
            return tuple(texts) if letters_alone else tuple(text.strip() for text in texts), tuple(labels)
    if not letters_alone:
        _check_order(choices)
    return tuple(choices), ()


def _check_order(choices: Sequence[str]) -> None:
    """Refuse "B. bell", "A. drum": an answer A could be either."""
    form = _FORM.format(label="([A-Za-z])", gap=_SPACE)
    found = [m[1] or m[2] for choice in choices if (m := re.match(form, choice))]
    due = list(LETTERS[: len(choices)])
    carried = [letter.upper() for letter in found]
    if len(carried) == len(choices) and carried != due and sorted(carried) == due:
        raise OmnisinkError(
            f"the choices carry the letters {', '.join(carried)}, and stand in another order: put them in the order "
            "of their letters, or leave the letters out"
        )
