"""The questions of a study, one file each, and the four functions that every such file offers.

A new question is a file with these functions and a line in `QUESTIONS`: the command line, the runner, the results and
the page go through that dict. A question with charts of its own gets them in `omnisink.report.sections`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from omnisink.results.schema import BaseRecord, StudyRecord
from omnisink.study import causality, direction, heads, identification, values
from omnisink.study.calibration import Calibration
from omnisink.study.item_measurements import ItemMeasurements
from omnisink.study.settings import Settings
from omnisink.study.unit import Unit


class Question(Protocol):
    """What a file of a question offers. Parameters are named alike in every file, used or not."""

    def units(
        self, measurements: ItemMeasurements, settings: Settings, calibration: Calibration, index: int
    ) -> Iterator[Unit]:
        """Yield what is done for one item, the one with the number `index`; each unit makes one record."""
        ...

    def summarise(
        self,
        records: Sequence[StudyRecord],
        base: Mapping[str, BaseRecord],
        settings: Settings,
        calibration: Calibration,
    ) -> dict[str, Any]:
        """Turn the question's records of all items into its section of the results.

        `base` has the records of the baseline by item.
        """
        ...

    def interpret(self, section: Mapping[str, Any]) -> list[str]:
        """Say in plain sentences what the section shows."""
        ...

    def cost(self, settings: Settings, index: int) -> float:
        """Return roughly how many runs of the model an item takes; it serves the time that is left, nothing else."""
        ...


#: By name, in the order in which they are asked and reported.
QUESTIONS: dict[str, Question] = {
    "identification": identification,
    "heads": heads,
    "values": values,
    "causality": causality,
    "direction": direction,
}
