"""Where controls of OutRo are searched: on one side, so that no setting is drawn that they refuse."""

from __future__ import annotations

import pytest

from omnisink.methods.controls import DIRECTIONS, OutRoControl


class StrongestAway:
    """A trial that draws the lowest of every range, and so the strongest rotation away."""

    def suggest_categorical(self, name, values):
        return values[0]

    def suggest_int(self, name, low, high):
        return low

    def suggest_float(self, name, low, high, log=False):
        return low


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_only_the_sinks_own_direction_is_searched_on_both_sides(direction):
    drawn = OutRoControl.search_space.suggest(StrongestAway(), 4, OutRoControl(direction=direction))
    assert drawn.gamma == pytest.approx(-10 if direction == "sink" else 10)
