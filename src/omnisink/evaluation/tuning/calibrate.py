"""Calibration of SinkRouter: the threshold at which a given share of the key/value heads is left out, by length.

A threshold needs no search. One pass over each prompt, and some steps after it, give the scores of all heads while
nothing is routed; the threshold is a quantile of them. What it leaves out where heads are routed differs a little, as
a routed layer changes the queries of those after it; that is measured on the same prompts, and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.run import checksum
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tuning.scoring import Batch, moved, prepare
from omnisink.media import FrameChoice
from omnisink.methods.names import name_of
from omnisink.methods.router_scores import RouterScores, threshold_for
from omnisink.methods.settings import plain_settings
from omnisink.methods.sink_router import SinkRouter
from omnisink.models.adapters.asking import answer
from omnisink.models.loaded import Loaded
from omnisink.results.wording import percent

#: Told what is being done, and how much of it, of how much.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Calibration:
    """How a threshold is calibrated.

    Attributes
    ----------
    target : float
        Share of the key/value heads of all layers that is to be left out.
    steps : int
        Tokens that are generated after each prompt; all but the first of them are decode steps.
    batch_size, threads, frames
        See `omnisink.evaluation.tuning.tune.Tuning`.
    """

    target: float = 0.6
    steps: int = 16
    batch_size: int = 4
    threads: int = 2
    frames: FrameChoice | None = None

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise OmnisinkError(f"the skip ratio to calibrate for must lie between 0 and 1, got {self.target:g}")
        if self.steps < 2:
            raise OmnisinkError(f"calibration needs 2 tokens or more after each prompt, got {self.steps}")


def calibrate(
    loaded: Loaded,
    instances: Sequence[Instance],
    router: SinkRouter,
    calibration: Calibration,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the threshold for every length of some prompts.

    Parameters
    ----------
    loaded : Loaded
        The model.
    instances : sequence of Instance
        The prompts. Those that are of several lengths (as long-context tasks say in their groups) give a curve, others
        one threshold.
    router : SinkRouter
        All other settings.
    calibration : Calibration
        The target, and how it is measured.
    progress : callable, optional
        Told how many prompts have been run, and of how many.

    Returns
    -------
    dict
        Plain data: `method` and `settings` for a profile, the `points` of the calibration, each with its `length`,
        `threshold`, `scored` (the share of heads above it where nothing is routed) and `realised` (the share that is
        left out), and what was not read, `left_out`.

    Raises
    ------
    OmnisinkError
        If nothing could be read, or the target is more than the layers that may be routed.
    """
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(next(iter(instance.groups.get("length", ())), ""), []).append(instance)
    points, left, done = [], {}, 0
    for own in groups.values():
        batches, lost = prepare(
            loaded,
            own,
            {instance.cluster: 0 for instance in own},
            size=calibration.batch_size,
            threads=calibration.threads,
            frames=calibration.frames,
        )
        left.update(lost)
        points.append(_point(loaded, batches, router, calibration))
        done += len(own)
        if progress is not None:
            progress("calibrating", done, len(instances))
    points.sort(key=lambda point: point["length"])
    curve = tuple((float(point["length"]), float(point["threshold"])) for point in points)
    made = replace(router, threshold=curve if len(curve) > 1 else curve[0][1])
    return {
        "method": name_of(SinkRouter),
        "settings": plain_settings(made),
        "points": points,
        "search": {
            "objective": "share of the key/value heads of all layers that is left out",
            "target": calibration.target,
            "steps": calibration.steps,
            "points": points,
        },
        "gain": {},
        "questions": len(instances) - len(left),
        "clusters": len({instance.cluster for instance in instances}),
        "sha256": checksum(instances),
        "left_out": left,
    }


def sentences(results: dict[str, Any]) -> list[str]:
    """Say what was found, a line for every length."""
    return [
        f"at {point['length']:,} tokens: threshold {point['threshold']:.4f}, which leaves out "
        f"{percent(point['realised'])} of the key/value heads ({percent(point['scored'])} of the scores are above it; "
        f"{point['prompts']} prompts)"
        for point in results["points"]
    ]


def _point(loaded: Loaded, batches: Sequence[Batch], router: SinkRouter, calibration: Calibration) -> dict[str, Any]:
    """Calibrate on prompts of one length, and run them once more with what was found."""
    settings = {one.name: getattr(router, one.name) for one in fields(SinkRouter)}
    scorer = RouterScores(**{**settings, "threshold": 0.0, "fit": "linear"})
    scores, total, lengths = [], 0, []
    for batch in batches:
        traces, steps = _run(loaded, batch, scorer, calibration)
        record = traces.record
        scores.append(_scores_of(record.measured.get("scores", {}), steps))
        total += sum(steps) * sum(record.groups.values())
        tokens = traces.token_mask.sum(dim=1).tolist()
        lengths += [n + (taken + 1) / 2 for n, taken in zip(tokens, steps, strict=True)]
    threshold, scored = threshold_for(torch.cat(scores), calibration.target, total)
    found = replace(router, threshold=threshold, fit="linear")
    realised: list[float] = []
    for batch in batches:
        trace, steps = _run(loaded, batch, found, calibration)
        realised += [share for share in trace.skip_ratios_of(steps) if share is not None]
    return {
        "length": round(fmean(lengths)),
        "threshold": round(threshold, 9),
        "scored": round(scored, 6),
        "realised": round(fmean(realised), 6),
        "prompts": len(lengths),
    }


def _run(loaded: Loaded, batch: Batch, method: SinkRouter, calibration: Calibration) -> tuple[Any, list[int]]:
    """Generate after the prompts of a batch; return the trace, and the decode steps of each prompt."""
    said = answer(
        loaded,
        moved(batch.inputs, loaded.model.device),
        max_new_tokens=calibration.steps,
        min_new_tokens=calibration.steps,
        method=method,
    )
    return said[0].trace, [one.new_tokens - 1 for one in said]


def _scores_of(by_layer: dict[int, list[Tensor]], steps: Sequence[int]) -> Tensor:
    """Return the scores of the steps that count, one after the other."""
    kept = [
        scores[b].cpu()
        for passes in by_layer.values()
        for number, scores in enumerate(passes)
        for b, count in enumerate(steps)
        if number < count
    ]
    if not kept:
        raise OmnisinkError("no decode step was scored: the answers end at once, or no layer can be routed")
    return torch.cat(kept)
