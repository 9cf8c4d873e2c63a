"""A run on a Ray cluster: Ray Data hands out chunks of questions to actors that hold a model each.

An actor writes its records itself, in a folder of its own inside the run's, as a rank of `torchrun` does; what goes
back through Ray is how many. So neither a writer that starves nor a driver that dies costs an answer. With several
machines the run's folder must be on a file system that all of them see.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.batchsize import BatchSize
from omnisink.evaluation.running.parts import Picked, read_parts
from omnisink.evaluation.running.run import Progress, Settings, begin_run, run
from omnisink.evaluation.tasks.instance import Instance
from omnisink.extras import install
from omnisink.methods.classes import modules_of_files

#: Questions that are handed out at a time: enough for a few batches, few enough that actors end together.
_CHUNK = 32


def run_on_ray(
    load: Mapping[str, Any],
    instances: Sequence[Instance],
    settings: Settings,
    folder: str | Path,
    *,
    workers: int | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Answer every question under every method with several models at once, as `run` does with one.

    An actor that dies is started anew by Ray, and goes on with what has no record yet. The cluster is the one that
    ``RAY_ADDRESS`` names, else one on this machine that ends with the run.

    Parameters
    ----------
    load : mapping
        What `omnisink.models.loading.load_model` takes, the name of the model as ``name``.
    instances, settings, folder, facts, progress
        As for `omnisink.evaluation.running.run.run`.
    workers : int, optional
        Actors; None is one for each accelerator of the cluster, or for each processor where there is none.

    Raises
    ------
    OmnisinkError
        If Ray is not installed, the run was begun otherwise, or an actor fails with an error that is not a question's.
    """
    ray = _ray()
    for name in ("ray", "ray.data"):  # What goes wrong is raised, and how far it is `progress` is told.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for module in modules_of_files():  # A worker cannot import them by name, so their code goes along.
        ray.cloudpickle.register_pickle_by_value(module)
    folder = Path(folder).resolve()
    begin_run(folder, instances, settings, facts or {})
    mine = not ray.is_initialized()
    if mine:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", configure_logging=False)
    try:
        have = ray.cluster_resources()
        accelerators = int(have.get("GPU", 0))
        count = workers or accelerators or max(1, int(have.get("CPU", 1)))
        chunks = _chunks(instances)
        data = ray.data.from_items([{"chunk": i} for i in range(len(chunks))], override_num_blocks=len(chunks))
        answered = data.map_batches(
            _Actor,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=min(count, len(chunks))),
            num_gpus=1 if accelerators else 0,
            num_cpus=0 if accelerators else 1,
            fn_constructor_args=(dict(load), chunks, settings, str(folder), dict(facts or {})),
        )
        total = len(instances) * len(settings.methods)
        for _ in answered.iter_batches(batch_size=1, prefetch_batches=0):
            if progress is not None:
                last = {(r["id"], r["method"]): r["error"] for r in read_parts(folder)}
                progress(len(last), total, sum(error is not None for error in last.values()))
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]  # What comes before is where in Ray it happened.
        raise OmnisinkError(f"Ray could not finish the run, whose records are kept: {said}") from error
    finally:
        if mine:
            ray.shutdown()


class _Actor:
    """One process with one model."""

    def __init__(
        self,
        load: dict[str, Any],
        chunks: list[list[Instance]],
        settings: Settings,
        folder: str,
        facts: dict[str, Any],
    ) -> None:
        from omnisink.models.loading import load_model

        self._loaded = load_model(load.pop("name"), **load)
        self._chunks, self._settings, self._folder, self._facts = chunks, settings, folder, facts
        self._size = BatchSize(settings.batch_size)
        # Ray starts an actor that died under the same name, and the lock of its folder has gone with its process.
        self._name = _ray().get_runtime_context().get_actor_id()[:16]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        everyone = [instance for chunk in self._chunks for instance in chunk]
        for number in batch["chunk"].tolist():
            picked = Picked(self._name, frozenset(instance.id for instance in self._chunks[number]))
            run(
                self._loaded,
                everyone,
                self._settings,
                self._folder,
                facts=self._facts,
                rank=picked,
                size=self._size,
            )
        return {"chunk": batch["chunk"]}


def _chunks(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Cut the questions into chunks between clusters, so that a file is read by one actor."""
    chunks: list[list[Instance]] = [[]]
    for instance in instances:
        if len(chunks[-1]) >= _CHUNK and chunks[-1][-1].cluster != instance.cluster:
            chunks.append([])
        chunks[-1].append(instance)
    return chunks


def _ray() -> Any:
    """Import Ray, which is told to report nothing to its makers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise OmnisinkError(
            f"--engine ray needs Ray Data, which is not installed ({error}). Install with: {install('ray')}"
        ) from None
    return ray
