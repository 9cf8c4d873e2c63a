"""Where the settings of OutRo are searched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omnisink.methods.space import short

if TYPE_CHECKING:
    from omnisink.methods.outro import OutRo

#: What is searched. Layers depend on the model: the last two never look for sinks, as in the paper. Strengths are of
#: either sign: a negative one rotates away from the sink's value.
GAMMAS, TAUS = (0.01, 10.0), (0.01, 1.0)
TOWARD, AWAY = "toward", "away"
#: What OutRo turns to; the controls that are made of it have a setting for that.
_SINK = "sink"
PARTS = ("both", "rotate", "relax")
PLACES = ("every", "one")


class OutRoSpace:
    """Strength, temperature, which parts act, a range of layers that look for sinks, and where masks are relaxed."""

    def initial(self, depth: int, start: OutRo) -> dict[str, Any]:
        """See `SearchSpace`."""
        return {
            "parts": "both",
            "strength": _place(start.gamma),
            "tau": min(max(start.tau, TAUS[0]), TAUS[1]),
            "first": 0,
            "layers": depth,
            "place": "every",
            "relaxed": 0,
        }

    def suggest(self, trial: Any, depth: int, start: OutRo) -> OutRo:
        """Draw settings, whose numbers have three digits.

        Every parameter is drawn in every trial, also one that then has no effect, so that the sampler sees one space.
        """
        parts = trial.suggest_categorical("parts", PARTS)
        # One axis for both signs, on which the weakest of both are neighbours, as their effects are.
        gamma = _gamma(trial.suggest_float("strength", -1.0, 1.0))
        if getattr(start, "direction", _SINK) != _SINK:
            gamma = abs(gamma)  # A control is searched on one side: what it turns to is compared.
        tau = trial.suggest_float("tau", *TAUS, log=True)
        first = trial.suggest_int("first", 0, depth - 1)
        count = trial.suggest_int("layers", 1, depth)
        place = trial.suggest_categorical("place", PLACES)
        relaxed = trial.suggest_int("relaxed", 0, depth - 1)
        last = min(first + count, depth) - 1
        rotate, relax = parts != "relax", parts != "rotate"
        return replace(
            start,
            # What is off keeps its default, so that settings that do the same are the same.
            gamma=short(gamma) if rotate else start.gamma,
            tau=short(tau) if rotate else start.tau,
            rotate=rotate,
            relax=relax,
            detect_layers=tuple(range(first, last + 1)),
            relax_layers=(min(max(relaxed, first), last),) if relax and place == "one" else None,
        )

    def describe(self) -> dict[str, Any]:
        """See `SearchSpace`."""
        return {
            "gamma": list(GAMMAS),
            "directions": [TOWARD, AWAY],
            "tau": list(TAUS),
            "parts": list(PARTS),
            "relaxation": list(PLACES),
        }

    def off(self, start: OutRo) -> OutRo:
        """Neither rotate nor relax."""
        return replace(start, gamma=0.0, relax=False)

    def is_off(self, method: OutRo) -> bool:
        """Whether neither anything is rotated nor a mask relaxed."""
        return not ((method.rotate and method.gamma != 0) or method.relax)


def direction_of(settings: Mapping[str, Any]) -> str | None:
    """Return whether settings rotate toward the sink's value or away from it.

    Parameters
    ----------
    settings : mapping
        Those of OutRo or of a method made of it, as plain data.

    Returns
    -------
    str or None
        ``"toward"`` or ``"away"``; None where nothing is rotated, where it is rotated to something else than
        the sink's value, and of methods that have no `gamma` and `rotate`.
    """
    gamma = settings.get("gamma")
    number = isinstance(gamma, int | float) and not isinstance(gamma, bool)
    if not number or not gamma or settings.get("rotate") is not True or settings.get("direction", _SINK) != _SINK:
        return None
    return TOWARD if gamma > 0 else AWAY


def _gamma(place: float) -> float:
    """Return the strength at a place from -1, the strongest away, over 0, the weakest, to 1, the strongest toward."""
    low, high = GAMMAS
    return math.copysign(low * (high / low) ** abs(place), place)


def _place(gamma: float) -> float:
    """Return the place of a strength, or of the nearest that is searched."""
    low, high = GAMMAS
    strength = min(max(abs(gamma), low), high)
    return math.copysign(math.log(strength / low) / math.log(high / low), gamma)
