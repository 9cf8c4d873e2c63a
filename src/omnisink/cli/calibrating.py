"""`omnisink tune --method sink-router --target-skip 0.6`: a threshold for every length, read off scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnisink.cli.output import note, print_json
from omnisink.cli.progress import progress_bar
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from omnisink.evaluation.tasks.instance import Instance
    from omnisink.evaluation.tuning.tune import Tuning
    from omnisink.methods.base import Method
    from omnisink.models.loaded import Loaded


def check_router(method: Method, target: float) -> None:
    """Refuse a method that has no threshold to calibrate, and a target that is no share."""
    from omnisink.evaluation.tuning.calibrate import Calibration
    from omnisink.methods.sink_router import SinkRouter

    Calibration(target)
    if not isinstance(method, SinkRouter):
        raise OmnisinkError(
            f"--target-skip calibrates SinkRouter, and the method is {type(method).__name__}: "
            "name --method sink-router"
        )


def refuse_search(method: Method) -> None:
    """Refuse a search for SinkRouter's settings."""
    from omnisink.methods.sink_router import SinkRouter

    if isinstance(method, SinkRouter):
        raise OmnisinkError(
            "SinkRouter acts on generated tokens, and a search takes its answers from one pass over the prompt: all "
            "settings would look alike. Calibrate it: --method sink-router --target-skip 0.6"
        )


def run_calibration(
    loaded: Loaded, instances: Sequence[Instance], method: Any, target: float, tuning: Tuning
) -> dict[str, Any]:
    """Calibrate, and show how far it is."""
    from omnisink.evaluation.tuning.calibrate import Calibration, calibrate

    calibration = Calibration(target, batch_size=tuning.batch_size, threads=tuning.threads, frames=tuning.frames)
    with progress_bar() as tell:
        return calibrate(
            loaded, instances, method, calibration, lambda what, done, total: tell(done, total, what, what)
        )


def report(results: dict[str, Any], to: str, json: bool) -> None:
    """Print what was found, and where it is kept."""
    from omnisink.evaluation.tuning.calibrate import sentences

    for question, why in results["left_out"].items():
        note(f"left out: {question}: {why}")
    if json:
        print_json(results)
    else:
        print(*sentences(results), to, sep="\n")
