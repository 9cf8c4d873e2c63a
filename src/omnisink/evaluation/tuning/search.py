"""The search for settings: where it looks, what it maximises, and when it gives a setting up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisink.errors import OmnisinkError
from omnisink.evaluation.tuning.scoring import Batch, QuestionError
from omnisink.extras import install
from omnisink.methods.base import Method
from omnisink.methods.space import space_of

Floats = NDArray[np.float64]

#: A setting is given up that is this number of standard errors behind the best, after this number of clusters or more.
_BEHIND, _CLUSTERS = 2.0, 6

#: What a setting gains on each question of a batch.
Measure = Callable[[Method, Batch], Floats]


@dataclass(frozen=True)
class Trial:
    """A setting that was tried.

    Attributes
    ----------
    method : Method
        The setting.
    gain : float
        Mean over the questions that were asked.
    questions : int
        How many that were.
    stopped : bool
        Whether it was given up before the end; it can then not be chosen.
    error : str or None
        Why it was given up, where that is that a question could not be answered under it, as where its numbers
        overflow.
    """

    method: Method
    gain: float
    questions: int
    stopped: bool
    error: str | None = None


def probability_margin(margins: Floats) -> Floats:
    """Bound margins: ``tanh(m / 2)``, the probability of the right answer less that of the best wrong one.

    As if these two were all there is. 1 is certain and right, -1 certain and wrong; it is positive exactly where the
    likeliest answer is right.
    """
    return np.tanh(margins / 2)


def is_dominated(gains: Floats, best: Floats, clusters: Sequence[str]) -> bool:
    """Whether a setting is so far behind another on the same questions that the rest need not be asked.

    Parameters
    ----------
    gains, best : ndarray of float
        (N,), of the setting and of the best so far.
    clusters : sequence of str
        (N,), which cluster each question belongs to.

    Returns
    -------
    bool
        True where it is behind by more than two standard errors, with clusters as the units.
    """
    names, place = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    if len(names) < _CLUSTERS:
        return False
    sums = np.bincount(place, weights=gains - best)
    return bool(sums.sum() < -_BEHIND * math.sqrt(len(sums)) * sums.std(ddof=1))


def search(
    measure: Measure,
    batches: Sequence[Batch],
    *,
    depth: int,
    start: Method,
    trials: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Trial]:
    """Look for the setting that gains most, with Optuna's TPE sampler.

    The search depends only on its arguments and on what is measured. One that was stopped is therefore taken up by
    running it again on kept measurements: it takes the same steps.

    Parameters
    ----------
    measure : callable
        What a setting gains over the baseline on each question of a batch. It is asked only about `batches`.
    batches : sequence of Batch
        The questions, in the order in which a setting is tried on them.
    depth : int
        Layers that can look for sinks.
    start : Method
        The first setting; what is not searched stays as it is here.
    trials : int
        How many settings are tried.
    seed : int
        Seed of the sampler.
    progress : callable, optional
        Told the number of trials done.

    Returns
    -------
    list of Trial
        In order.

    Raises
    ------
    OmnisinkError
        If Optuna is not installed, or the class refuses every setting that is drawn.
    """
    clusters = [cluster for batch in batches for cluster in batch.clusters]
    best = np.zeros(len(clusters))  # That of the baseline.
    tried: list[Trial] = []
    space = space_of(start)
    refused: ValueError | None = None
    with _quiet_optuna() as optuna:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        study.enqueue_trial(space.initial(depth, start))
        for number in range(trials):
            trial = study.ask()
            try:
                method = space.suggest(trial, depth, start)
            except ValueError as out_of_range:  # A range that was derived may go beyond what the class takes.
                refused = out_of_range
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                if progress is not None:
                    progress(number + 1)
                continue
            gains, stopped, error = np.zeros(0), False, None
            for step, batch in enumerate(batches):
                try:
                    gains = np.concatenate([gains, measure(method, batch)])
                except QuestionError as unanswered:  # The baseline has answered all of these.
                    stopped, error = True, str(unanswered)
                    break
                trial.report(float(gains.mean()), step)
                whole = len(gains) == len(clusters)
                if not whole and is_dominated(gains, best[: len(gains)], clusters[: len(gains)]):
                    stopped = True
                    break
            if stopped:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, float(gains.mean()))
                best = max(best, gains, key=lambda values: float(values.mean()))
            tried.append(Trial(method, float(gains.mean()) if len(gains) else 0.0, len(gains), stopped, error))
            if progress is not None:
                progress(number + 1)
    if not tried:
        raise OmnisinkError(
            f"{type(start).__name__} refuses every setting that was drawn. Declare a search_space in the class. "
            f"The last: {refused}"
        )
    return tried


def choose(tried: Sequence[Trial]) -> Trial | None:
    """Return the best setting that was tried on every question; None where none gains anything."""
    whole = [trial for trial in tried if not trial.stopped]
    found = max(whole, key=lambda trial: trial.gain, default=None)
    return found if found is not None and found.gain > 0 else None


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """Import Optuna, and keep its log of every trial to itself."""
    try:
        optuna = import_module("optuna")
    except ImportError as error:
        raise OmnisinkError(
            f"the search for settings needs Optuna, which is not installed ({error}). Install with: {install('eval')}"
        ) from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)
