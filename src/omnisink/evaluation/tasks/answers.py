"""From what a model said to an answer: the parsers of the benchmarks, to the letter, and our strict ones.

A parser returns one of the instance's answers, or None. It never guesses, and it never looks at the right answer.
Where an official evaluation does either, the docstring says what is done instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from omnisink.evaluation.tasks.instance import Instance
from omnisink.questions.letters import LETTERS
from omnisink.questions.parsing import parse_letter, parse_yes_no

Parser = Callable[[str, Instance], str | None]

#: What the evaluation of Video-MME takes out. Two pairs lack a comma, so that Python joins them; that is kept.
_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
)


#: VLMEvalKit's for WorldSense, which are two more.
_WORLDSENSE = (*_PREFIXES, "Answer:", "Option:")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
#: Between two words of a closed set that are both named.
_BETWEEN = (
    r"\s*(?:[,/;|&+.:–—-]|\b(?:or|and|nor|to|but|versus|vs)\b)[\s,]*(?:(?:maybe|perhaps|possibly|not|even)\b\s*)*"
)


def letter(text: str, instance: Instance) -> str | None:
    """Ours: the letter that the text is, begins with, or names once in brackets or after "answer is".

    Nothing where it names two, denies one, or where the letter is an article: "A or B", "not (A)", "A bell.".
    """
    return parse_letter(text, len(instance.answers))


def yes_no(text: str, instance: Instance) -> str | None:
    """Ours: the first word, if it is yes or no and the other does not follow: "Yes or no" is neither."""
    return parse_yes_no(text)


def letters(text: str, instance: Instance) -> str | None:
    """Ours, for several letters: the text is nothing but letters, with commas, spaces or "and" between."""
    allowed = LETTERS[: max(len(instance.options), 2)]
    said = text.strip().removesuffix(".")
    if not re.fullmatch(rf"[{allowed}](?:\s*(?:,|\band\b|\s)\s*[{allowed}])*", said):
        return None
    return ",".join(sorted(set(re.findall(rf"[{allowed}]", said.replace("and", " ")))))


def words(text: str, instance: Instance) -> str | None:
    """Ours, for a closed set: the longest of its words that the text begins with, if no other of them is joined to it.

    Case does not matter, "acoustic guitar" is acoustic_guitar, and 0 to 10 are words; "2 or 3" is neither.
    """
    known = {_plain_words(answer): answer for answer in instance.answers}
    said = _plain_words(text)
    for name in sorted(known, key=len, reverse=True):
        if found := re.match(rf"{re.escape(name)}(?!\w|[.,]\d)", said):
            rest = said[found.end() :]
            others = "|".join(re.escape(other) for other in known if other != name)
            joined = re.match(rf"{_BETWEEN}(?:{others or '(?!)'}|\d+)(?!\w)", rest)
            return None if joined else known[name]
    return None


def _plain_words(text: str) -> str:
    """Return a text in lower case, with blanks for underscores and words for the numbers up to ten."""
    said = re.sub(r"[\s_]+", " ", text.strip().casefold())
    return re.sub(r"(?<![\w.,])(\d|10)(?!\w|[.,]\d)", lambda m: _NUMBERS[int(m[1])], said)


def exact(text: str, instance: Instance) -> str | None:
    """Ours, for a free answer: the text in lower case, without white space and a full stop at its ends."""
    said = " ".join(text.split()).removesuffix(".").rstrip().casefold()
    return said or None


def string_match(text: str, instance: Instance) -> str | None:
    """RULER's, for one right answer or several: the whole text, in lower case, in which they are looked for."""
    return " ".join(text.split()).casefold() or None


def outro_yes_no(text: str, instance: Instance) -> str | None:
    """OutRo's release, AVHBench: the first yes or no anywhere in the text."""
    found = re.search(r"\b(yes|no)\b", text, re.IGNORECASE)
    return found[1].lower() if found else None


def outro_letter(text: str, instance: Instance) -> str | None:
    """OutRo's release, Daily-Omni: in upper case, the first of A to D that the text begins with or has in brackets.

    So "Because" is B. Else the letter after "Answer:".
    """
    said = text.strip().upper()
    for choice in "ABCD":
        if said.startswith(choice) or f"({choice})" in said or f"[{choice}]" in said:
            return choice
    found = re.search(r"ANSWER:\s*([A-D])", said)
    return found[1] if found else None


def daily_omni(text: str, instance: Instance) -> str | None:
    """Daily-Omni's test: A to D, in any case, at the beginning of what follows "assistant", else of the text."""
    after = re.search(r"assistant\s*([\s\S]*)$", text)
    found = re.match(r"\s*([A-D])", after[1].strip() if after else text, re.IGNORECASE)
    return found[1].upper() if found else None


def video_holmes(text: str, instance: Instance) -> str | None:
    """Video-Holmes's evaluation: in the last <answer>, else in the text, letters by their order, not their place.

    The first of A to F that stands before a space or a colon, or after a square bracket; else the first of them that
    is anywhere.
    """
    tagged = re.findall(r"<answer>\s*(.*?)\s*</answer>", text, re.DOTALL)
    said = tagged[-1].strip() if tagged else text
    for choice in "ABCDEF":
        if f"{choice} " in said or f"{choice}:" in said or f"[{choice}" in said:
            return choice
    return next((choice for choice in "ABCDEF" if choice in said), None)


def first_capital(text: str, instance: Instance) -> str | None:
    """Video-MME's evaluation: without certain phrases, the first of A to D anywhere: "Based" is B."""
    return _first_capital(text, _PREFIXES)


def worldsense(text: str, instance: Instance) -> str | None:
    """VLMEvalKit's for WorldSense: as Video-MME's, and "Answer:" and "Option:" are taken out too.

    Where nothing is left it looks for the text of an option, which its table does not hold, so that nothing is found.
    """
    return _first_capital(text, _WORLDSENSE)


def _first_capital(text: str, prefixes: Iterable[str]) -> str | None:
    said = text.strip()
    for prefix in prefixes:
        said = said.replace(prefix, "")
    found = re.search(r"[ABCD]", said)
    return found[0] if found else None


def first_token(text: str, instance: Instance) -> str | None:
    """MVBench's evaluation: the first word after the reply "Best option:(" names an option, or is part of its name.

    The official test compares only with the right answer, so that an empty text counts as right. Here the word must
    fit one option and no other.
    """
    lines = text.strip().split("\n")
    said = f"({lines[0]}".lower().split(" ")[0]
    names = {choice: f"({choice.lower()})" for choice in instance.answers}
    fitting = [c for c, name in names.items() if said.replace(".", "") in name or name in said]
    return fitting[0] if len(fitting) == 1 else None


def mlvu(text: str, instance: Instance) -> str | None:
    """MLVU's `choice_bench.py`: the one character before the first ")", else the whole text, is the letter itself."""
    said = text.strip()
    place = said.find(")")
    named = said if place < 0 else said[max(0, place - 1) : place]
    return named if named in instance.answers else None


def cmm(text: str, instance: Instance) -> str | None:
    """CMM's evaluation: yes or no in the first five characters. Where both are the official takes either; we none."""
    said = text.strip().lower()[:5]
    found = [answer for answer in ("yes", "no") if answer in said]
    return found[0] if len(found) == 1 else None


def lvbench(text: str, instance: Instance) -> str | None:
    """LVBench's `polish_answer`: before ")", after "(", the first word, its first character."""
    said = text.strip().split(")")[0].strip()
    if "(" in said:
        said = said.split("(")[1].strip()
    said = said.split(" ")[0][:1]
    return said if said in instance.answers and said else None


def first_upper(text: str, instance: Instance) -> str | None:
    """OmniZip's evaluation of AVUT: the first character in upper case."""
    said = text.strip()[:1].upper()
    return said if said and said in instance.answers else None


def omnibench(text: str, instance: Instance) -> str | None:
    """OmniBench's parser, MMMU's: letters in brackets, before a space, before a full stop; then texts of options.

    Of several the last is taken. The official one draws a letter at random where there is none; here the answer is
    then not parseable.
    """
    said = f" {text} "
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        if found := [c for c in instance.answers if form.format(c) in said]:
            # As in MMMU's code, a letter that is not alone between spaces has the place -1.
            return max(found, key=lambda c, p=place: said.rfind(p.format(c)))  # type: ignore[misc]
    if len(said.split()) > 5:
        texts = dict(zip(instance.answers, (o.lower() for o in instance.options), strict=False))
        if found := [c for c, option in texts.items() if option in said.lower()]:
            return max(found, key=lambda c: said.lower().rfind(texts[c]))
    return None


def intent_choice(text: str, instance: Instance) -> str | None:
    """IntentBench, one letter: the first <answer>, else the text, is the letter and nothing else."""
    said = _tagged(text)
    return said if said in instance.answers else None


def intent_several(text: str, instance: Instance) -> str | None:
    """IntentBench, several letters: the first <answer>, else the text, as it is; it is split at commas when scored."""
    return _tagged(text) or None


def intent_yes_no(text: str, instance: Instance) -> str | None:
    """IntentBench, yes or no: which of them is anywhere in the first <answer>, else in the text, even inside a word.

    Where both are there the official evaluation counts the answer as right; here it is not parseable.
    """
    said = _tagged(text).lower()
    found = [answer for answer in ("yes", "no") if answer in said]
    return found[0] if len(found) == 1 else None


def _tagged(text: str) -> str:
    found = re.search(r"<answer>\s*(.*?)\s*</answer>", text, re.DOTALL)
    return (found[1].strip() if found else "") or text.strip()


#: All parsers, by the names that protocols use.
PARSERS: dict[str, Parser] = {
    parser.__name__: parser
    for parser in (
        letter,
        yes_no,
        letters,
        words,
        exact,
        string_match,
        outro_yes_no,
        outro_letter,
        daily_omni,
        video_holmes,
        first_capital,
        worldsense,
        first_token,
        mlvu,
        cmm,
        lvbench,
        first_upper,
        omnibench,
        intent_choice,
        intent_several,
        intent_yes_no,
    )
}


def parse(text: str, instance: Instance) -> str | None:
    """Read an answer with the parser of its instance.

    Parameters
    ----------
    text : str
        What the model wrote, after the instance's `reply` where it has one.
    instance : Instance
        What was asked.

    Returns
    -------
    str or None
        The answer in the terms of `gold`; None where there is none to be read.
    """
    return PARSERS[instance.parser](text, instance)
