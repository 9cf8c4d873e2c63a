"""What a search for settings gave: its worth, the profile that keeps it, and the same in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from omnisink.evaluation.comparing.wording import HIGHER, LOWER, verdict
from omnisink.evaluation.tuning.scoring import Batch, Floats
from omnisink.evaluation.tuning.search import probability_margin
from omnisink.methods import profile as profiles
from omnisink.methods.outro_space import AWAY, TOWARD, direction_of
from omnisink.models.loaded import Loaded
from omnisink.results.disk import atomic_write
from omnisink.results.statistics import SHARES_DIFFER, paired_difference
from omnisink.results.wording import number, p_equals, percent, points

NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Tested:
    """A batch under a setting and without.

    Attributes
    ----------
    batch : Batch
        The questions.
    margins, base : ndarray of float
        Margins under the setting, and of the baseline.
    """

    batch: Batch
    margins: Floats
    base: Floats


def gain_of(tested: Sequence[Tested], own: Sequence[Tested], seed: int) -> dict[str, Any]:
    """Write what the search is worth: where it was tested, and where it was made, which is not a test.

    Parameters
    ----------
    tested : sequence of Tested
        Questions of every fold under the settings that were found without them; empty where nothing was tested.
    own : sequence of Tested
        All questions under the settings that were found with them.
    seed : int
        Seed of the intervals.

    Returns
    -------
    dict
        Plain data: a verdict, and for `lead` and `accuracy` the paired difference with its interval.
    """
    optimistic = {name: _estimate(own, read, seed)["difference"] for name, read in _MEASURES.items()}
    if not tested:
        return {"verdict": NOT_TESTED, **dict.fromkeys(_MEASURES), "where_searched": optimistic}
    found = {name: _estimate(tested, read, seed) for name, read in _MEASURES.items()}
    # One verdict, on what was searched for: two would need a correction.
    said = verdict({**found["lead"], "p_holm": found["lead"]["p"]})
    return {"verdict": said, **found, "where_searched": optimistic}


def _estimate(tested: Sequence[Tested], read: Callable[[Floats], Floats], seed: int) -> dict[str, Any]:
    arm = np.concatenate([read(t.margins) for t in tested])
    base = np.concatenate([read(t.base) for t in tested])
    clusters = [c for t in tested for c in t.batch.clusters]
    found = paired_difference(arm, base, clusters, bounds=SHARES_DIFFER if read is _right else None, seed=seed)
    return {
        "questions": len(arm),
        "base": float(base.mean()),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def _right(margins: Floats) -> Floats:
    return (margins > 0).astype(np.float64)


#: What is reported of margins.
_MEASURES: dict[str, Callable[[Floats], Floats]] = {"lead": probability_margin, "accuracy": _right}


def make_profile(loaded: Loaded, results: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile, as `Method.from_profile` reads it.

    Parameters
    ----------
    loaded : Loaded
        The model that was tuned.
    results : mapping
        What `tune` returned, with settings to keep.
    facts : mapping
        ``model``, ``versions`` and ``task``, as the manifest has them.

    Returns
    -------
    dict
        Plain data.
    """
    # The path of a folder or a file says nothing on another machine.
    name = Path(loaded.name).name if Path(loaded.name).exists() else loaded.name
    model = {key: value for key, value in (facts.get("model") or {}).items() if key not in ("weights", "device")}
    counts = {key: results[key] for key in ("questions", "clusters", "sha256")}
    return {
        "format": profiles.FORMAT,
        "method": results["method"],
        "settings": results["settings"],
        "model": {**model, "name": name, "fingerprint": profiles.fingerprint(loaded.model)},
        "task": {**(facts.get("task") or {}), **counts, "left_out": len(results["left_out"])},
        "search": {**results["search"], "direction": results.get("direction")},
        "gain": results["gain"],
        "versions": facts.get("versions") or {},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write_profile(path: str | Path, profile: Mapping[str, Any]) -> None:
    """Write a profile, whole or not at all."""
    atomic_write(Path(path), (json.dumps(profile, ensure_ascii=False, indent=1) + "\n").encode())


def sentences(results: Mapping[str, Any]) -> list[str]:
    """Say what was found and what it is worth, claiming no more than was tested."""
    gain = results["gain"]
    seen = gain["where_searched"]
    said = [f"No setting was better than the baseline, {_off(results)}"] if results["off"] else []
    margin = number(seen["lead"], "+.4f")
    searched = f"probability margin {margin}, accuracy {points(seen['accuracy'])} points"
    if gain["verdict"] == NOT_TESTED:
        return [
            *said,
            *_directions(results),
            f"The gain was not tested. On the questions it was chosen by: {searched}, which is too good by nature.",
        ]
    word = {HIGHER: "A gain", LOWER: "A loss"}.get(gain["verdict"], "No evidence of a gain")
    one, two = gain["lead"], gain["accuracy"]
    return [
        *said,
        f"{word} on questions that the search did not see: probability margin "
        f"{_between(one, lambda v: number(v, '+.4f'))}, p {p_equals(one['p'])}; "
        f"accuracy {_between(two, points)} points from {percent(two['base'])}.",
        f"On the questions it was chosen by: {searched}, which is too good by nature.",
        *_directions(results),
    ]


def _directions(results: Mapping[str, Any]) -> list[str]:
    """Say which direction was chosen, and what the best settings of both gained, where the search tried both."""
    gains: dict[str, list[float]] = {}
    given_up: dict[str, int] = {}
    for trial in results["trials"]:
        if (direction := direction_of(trial["settings"])) is not None:
            gains.setdefault(direction, []).extend([] if trial["stopped"] else [trial["gain"]])
            given_up[direction] = given_up.get(direction, 0) + trial["stopped"]
    if not gains:
        return []
    chosen = {TOWARD: "rotates toward the sink's value", AWAY: "rotates away from the sink's value"}
    best = [
        f"{one} {number(max(gains[one]), '+.4f') if gains[one] else f'all {given_up[one]} settings given up early'}"
        for one in (TOWARD, AWAY)
        if one in gains
    ]
    did = chosen.get(results["direction"], "does not rotate")
    return [f"The chosen setting {did}. Best probability margin where it was searched: {', '.join(best)}."]


def _off(results: Mapping[str, Any]) -> str:
    if results["settings"] is None:
        return "so there is nothing to keep in a profile."
    return "so the profile switches OutRo off."


def _between(found: Mapping[str, Any], write: Callable[[float], str]) -> str:
    value, low, high = (None if found[key] is None else write(found[key]) for key in ("difference", "low", "high"))
    return f"{value}" if low is None else f"{value} (95% {low} to {high})"
