"""Where the settings of OutRo are searched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omnisink.methods.space import short

if TYPE_CHECKING:
    from omnisink.methods.outro import OutRo

#: What is searched. Layers depend on the model: the last two never look for sinks, as in the paper.
GAMMAS, TAUS = (0.01, 10.0), (0.01, 1.0)
PARTS = ("both", "rotate", "relax")
PLACES = ("every", "one")


class OutRoSpace:
    """Strength, temperature, which parts act, a range of layers that look for sinks, and where masks are relaxed."""

    def initial(self, depth: int, start: OutRo) -> dict[str, Any]:
        """See `SearchSpace`."""
        return {
            "parts": "both",
            "gamma": min(max(abs(start.gamma), GAMMAS[0]), GAMMAS[1]),
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
        gamma = trial.suggest_float("gamma", *GAMMAS, log=True)
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
        return {"gamma": list(GAMMAS), "tau": list(TAUS), "parts": list(PARTS), "relaxation": list(PLACES)}

    def off(self, start: OutRo) -> OutRo:
        """Neither rotate nor relax."""
        return replace(start, gamma=0.0, relax=False)

    def is_off(self, method: OutRo) -> bool:
        """Whether neither anything is rotated nor a mask relaxed."""
        return not ((method.rotate and method.gamma != 0) or method.relax)
