"""Sentences that say nothing of what is asked: there are no numbers and no names in capitals in them."""

from __future__ import annotations

from omnisink.evaluation.tasks.long_context.draws import Draws

WHO = (
    "the baker", "a tired postman", "my aunt", "the younger brother", "a retired teacher", "the gardener",
    "an old sailor", "the librarian", "a shy student", "the bus driver", "our neighbour", "the night nurse",
    "a travelling musician", "the carpenter", "a curious child", "the village doctor", "a patient fisherman",
    "the new cook", "an absent-minded painter", "the watchmaker", "a quiet farmer", "the tailor",
    "a visiting cousin", "the miller",
)  # fmt: skip
DID = (
    "waited for the rain to stop", "read the same page twice", "hung the washing out to dry",
    "counted the boats on the river", "made a pot of strong tea", "forgot an umbrella", "fed the pigeons",
    "looked for a lost glove", "talked about the weather", "mended a broken chair", "sang an old tune",
    "watered the tomatoes", "wrote a long letter home", "fell asleep over a newspaper", "swept the steps",
    "bought a loaf of brown bread", "watched the clouds go by", "carried a basket of apples",
    "played a slow game of draughts", "painted the fence green", "told a story that nobody believed",
    "shared a piece of cake", "polished the brass handles", "drew a map of the valley",
)  # fmt: skip
WHERE = (
    "by the canal", "in the kitchen", "behind the church", "at the railway station", "under the chestnut tree",
    "on the balcony", "near the old mill", "in the waiting room", "beside the fountain", "at the edge of the forest",
    "on the market square", "in the back garden", "across the street", "on the wooden bridge",
    "at the foot of the hill", "in the courtyard",
)  # fmt: skip
WHEN = (
    "before breakfast", "in the early morning", "after lunch", "late in the afternoon", "on a windy day",
    "while the bells were ringing", "during the long winter", "on the first warm day of spring", "just before dark",
    "when the shops had closed", "all through the summer", "once again",
)  # fmt: skip


def sentence(draws: Draws) -> str:
    """Return a sentence of about fifteen words."""
    who, did, where, when = (draws.pick(part) for part in (WHO, DID, WHERE, WHEN))
    forms = (
        f"{who} {did} {where} {when}",
        f"{when}, {who} {did} {where}",
        f"{where}, {who} {did} {when}",
    )
    said = draws.pick(forms)
    return f"{said[0].upper()}{said[1:]}."


def sentences(draws: Draws, count: int) -> list[str]:
    """Return the given number of sentences; the first of a longer list are those of a shorter one."""
    return [sentence(draws) for _ in range(count)]


def spread(filler: list[str], placed: dict[str, float]) -> str:
    """Put statements among sentences, and return the text.

    Parameters
    ----------
    filler : list of str
        The sentences around them.
    placed : mapping of str to float
        Statements, each with its place from 0, before all sentences, to 1, behind them. Those at one place keep their
        order.

    Returns
    -------
    str
        One sentence after another, with a space between.
    """
    waiting = sorted(placed.items(), key=lambda pair: pair[1])
    text: list[str] = []
    before = 0
    for statement, depth in waiting:
        here = round(depth * len(filler))
        text += [*filler[before:here], statement]
        before = here
    return " ".join([*text, *filler[before:]])
