"""What the direction of the sink's value says, in sentences and in a line of a table, from the numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnisink.results.wording import counted, is_significant, listed, number
from omnisink.study import wording

Rows = Sequence[Mapping[str, Any]]


def sentences(section: Mapping[str, Any]) -> list[str]:
    """Say what a section of the results shows: the answer first, then what it rests on."""
    rows, sinks = section["directions"], section["sinks"]
    where = (
        f"Of {counted(sinks['items'], 'item')}, {number(sinks['first'])} have a sink at the first token and "
        f"{number(sinks['others'])} have one elsewhere."
    )
    if section.get("crowded"):
        where += (
            f" At {_layers(section['crowded'])} too many tokens are massive to be sinks: these layers are left "
            "out, except under “at every layer”."
        )
    if all(row["loss_low"] is None for row in rows):
        return [*wording.directions(rows), where]
    toward, away = _sink(rows, 1), _sink(rows, -1)
    said = [
        f"{answer(section)[0].upper()}{answer(section)[1:]}.",
        f"Toward the sink's value {_at_strengths(toward)}. {_range(toward)}",
        f"Away from it {_at_strengths(away)}. {_range(away)}",
        _same_angle(section),
        *_temperature(section),
        where,
    ]
    parts = [row for row in rows if row["by"] not in ("sink", "random", "opposite")]
    on_one = [row for row in parts if row["loss_low"] is None]
    said += wording.conditions([row for row in parts if row["loss_low"] is not None])
    # Sinks at the first token and after it are compared on the texts that have both.
    return said + [f"On the one text that has both, {one[0].lower()}{one[1:]}" for one in wording.directions(on_one)]


def answer(section: Mapping[str, Any]) -> str:
    """Say in one sentence whether the direction helps, hurts or carries no information, and if away beats random."""
    toward = effect(_sink(section["directions"], 1))
    differs = [row for row in _against(section, "random") if _significant(row)]
    away = [row for row in _against(section, "random") if row["gamma"] < 0]
    if not differs:
        informs = "no information: no strength differs from a random direction by the same angle"
        return f"turning toward the sink's value {_DOES[toward]}, and its direction carries {informs}"
    return (
        f"turning toward the sink's value {_DOES[toward]}, and its direction carries information: against a random "
        f"direction by the same angle, turning away is {_beats(away)}"
    )


#: What `effect` says, as a verb.
_DOES = {
    "helps": "helps",
    "hurts": "hurts",
    "both": "helps at some strengths and hurts at others",
    "neither": "changes nothing that holds",
}


def effect(rows: Rows) -> str:
    """Return "helps", "hurts", "both" or "neither": which way conditions change the loss wherever that holds."""
    ways = {row["loss_change"] < 0 for row in rows if _significant(row)}
    return "both" if len(ways) == 2 else "neither" if not ways else "helps" if ways.pop() else "hurts"


def at_middle(rows: Rows, gamma: float) -> Mapping[str, Any] | None:
    """Return the row of a strength, or None."""
    return next((row for row in rows if row["gamma"] == gamma), None)


def columns(section: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a model's line in the table of several studies, by the head of the column."""
    rows, gamma = section["directions"], section["middle"]
    named = number(gamma, "g")
    temperature = [row for row in section["comparisons"] if row["against"] == "baseline"]
    cells = {
        f"toward, γ = {named}": at_middle(_sink(rows, 1), gamma),
        f"away, γ = −{named}": at_middle(_sink(rows, -1), -gamma),
        f"toward − random, γ = {named}": at_middle(_against(section, "random"), gamma),
        f"away − random, γ = −{named}": at_middle(_against(section, "random"), -gamma),
        "fitted temperature": temperature[0] if temperature else None,
        f"away − baseline, γ = −{named}, both with a fitted temperature": at_middle(
            _against(section, "temperature"), -gamma
        ),
    }
    return {head: _cell(row) for head, row in cells.items()}


def short_verdict(section: Mapping[str, Any]) -> dict[str, str]:
    """Return the verdict on a model in a few words, by what it is about."""
    random = _against(section, "random")
    differs = sum(_significant(row) for row in random)
    away = [row for row in random if row["gamma"] < 0]
    return {
        "toward the sink's value": _DOES[effect(_sink(section["directions"], 1))],
        "away from it": _DOES[effect(_sink(section["directions"], -1))],
        "the direction carries information": (
            f"{'yes' if differs else 'not seen'}, at {number(differs)} of {counted(len(random), 'strength')}"
        ),
        "away, against a random direction": _beats(away),
    }


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return number(None)
    said = wording.nats(row["loss_change"], row["loss_low"], row["loss_high"]).replace(" nats", "")
    return f"**{said}**" if _significant(row) else said


def _sink(rows: Rows, sign: int) -> Rows:
    return [row for row in rows if row["by"] == "sink" and sign * row["gamma"] > 0]


def _against(section: Mapping[str, Any], other: str) -> Rows:
    return [row for row in section["comparisons"] if row["against"] == other]


def _significant(row: Mapping[str, Any]) -> bool:
    return is_significant(row["p_holm"], row["loss_low"], row["loss_high"])


def _counts(rows: Rows) -> tuple[int, int]:
    """Return at how many strengths the loss is lower, and higher, wherever that holds."""
    ways = [row["loss_change"] < 0 for row in rows if _significant(row)]
    return sum(ways), len(ways) - sum(ways)


def _at_strengths(rows: Rows) -> str:
    lower, higher = _counts(rows)
    of = f"of {counted(len(rows), 'strength')}"
    parts = [f"{what} the loss at {number(n)} {of}" for what, n in (("lowers", lower), ("raises", higher)) if n]
    return listed(parts) if parts else f"no change holds at any {of}"


def _range(rows: Rows) -> str:
    """Say what the weakest and the strongest turn change."""
    ends = sorted(rows, key=lambda row: abs(row["gamma"]))
    ends = [ends[0], ends[-1]] if len(ends) > 1 else ends
    parts = [
        f"{wording.nats(row['loss_change'], row['loss_low'], row['loss_high'])} at gamma {number(row['gamma'], 'g')}"
        for row in ends
    ]
    return f"It changes by {listed(parts)}."


def _layers(layers: Sequence[int]) -> str:
    """Name layers: "layer 3", "layers 1 to 4", "layers 1, 3 and 4"."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if layers[-1] - layers[0] == len(layers) - 1:
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layers {listed([str(layer) for layer in layers])}"


def _beats(rows: Rows) -> str:
    """Say at how many strengths a direction is better than another, and worse, wherever that holds."""
    lower, higher = _counts(rows)
    of = f"of {counted(len(rows), 'strength')}"
    if not lower and not higher:
        return f"neither better nor worse at any {of}"
    return " and ".join(f"{word} at {number(n)} {of}" for word, n in (("better", lower), ("worse", higher)) if n)


def _same_angle(section: Mapping[str, Any]) -> str:
    parts = []
    for other, named in (("random", "a random direction"), ("opposite", "the opposite direction")):
        rows = _against(section, other)
        for sign, way in ((1, "toward"), (-1, "away from")):
            own = [row for row in rows if sign * row["gamma"] > 0]
            lower, higher = _counts(own)
            if own:
                parts.append(
                    f"{way} the sink's value the loss is lower than with {named} at {number(lower)} of "
                    f"{counted(len(own), 'strength')} and higher at {number(higher)}"
                )
    return f"By the same angle, {listed(parts)}." if parts else "No other direction was tried."


def _temperature(section: Mapping[str, Any]) -> list[str]:
    """Say whether turning away does more than a temperature, which sharpens or flattens what is predicted."""
    plain = _against(section, "baseline")
    if not plain:
        return []
    fitted = listed([number(t, ".2f") for t in section["temperatures"]])
    said = [
        f"The baseline with a temperature fitted on other sources ({fitted}, a half of the sources each): "
        f"{wording.changes(plain[0])}."
    ]
    rows = _against(section, "temperature")
    lower, higher = _counts(rows)
    gained = effect(_sink(section["directions"], -1)) in ("helps", "both")
    if not rows:
        return said
    beyond = (
        f"With a temperature fitted for each, away lowers the loss at {number(lower)} of "
        f"{counted(len(rows), 'strength')} and raises it at {number(higher)}"
    )
    if gained and not lower:
        beyond += ", so that what it gains without one is no more than a temperature gains"
    return [*said, f"{beyond}."]
