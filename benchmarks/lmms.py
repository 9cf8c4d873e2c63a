"""The same questions by lmms-eval and by `omnisink eval`: whole processes by the clock, in pairs, with equal answers.

lmms-eval runs SmolOmni as the model ``omnisink``, in one process a method; `omnisink eval` runs all methods in one.
Both are started from the environment that runs this file, which needs lmms-eval: `make bench-lmms`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import omnisink
from benchmarks.history import append, write_lmms_table
from benchmarks.pairs import compare, rounded
from omnisink.errors import OmnisinkError
from omnisink.evaluation.running.parts import read_parts
from omnisink.evaluation.tasks.task import find_task
from omnisink.integrations.lmms import tasks_folder
from omnisink.integrations.lmms.questions import variable

CASES = (("outro",), ("baseline", "outro", "outro:rotate", "outro:relax"))

#: The answers of a run, by method and question.
Said = dict[tuple[str, str], str]


@dataclass
class Side:
    """One of the two programs, started anew for every run.

    Attributes
    ----------
    start : callable
        Runs the program in an empty folder and returns what the model said.
    folder : Path
        Where runs have their folders.
    wall, cpu : list of float
        Seconds by the clock and of all processors, for every run.
    said : dict
        Answers of the last run.
    """

    start: Callable[[Path], Said]
    folder: Path
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    said: Said = field(default_factory=dict)

    def run(self) -> float:
        """Run once and return the seconds by the clock."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        used, begin = _children(), time.perf_counter()
        self.said = self.start(folder)
        self.wall.append(time.perf_counter() - begin)
        self.cpu.append(_children() - used)
        return self.wall[-1]


def theirs(folder: Path, methods: Sequence[str], clips: Path, questions: int, dtype: str, batch_size: int) -> Said:
    """Run lmms-eval once for every method."""
    said: Said = {}
    ids = [instance.id for instance in find_task("synthav").load(clips)]
    for number, method in enumerate(methods):
        out = folder / str(number)
        options = {
            "model": "omnisink",
            "model_args": f"pretrained=smolomni,dtype={dtype},method={method}",
            "include_path": tasks_folder(),
            "tasks": "synthav",
            "limit": questions,
            "batch_size": batch_size,
            "output_path": out,
        }
        _start(["lmms_eval", *_written(options), "--log_samples"], folder, clips)
        files = list(out.rglob("*_samples_synthav.jsonl"))
        if len(files) != 1:  # lmms-eval leaves with status 0 whatever happened.
            raise OmnisinkError(f"lmms-eval wrote no samples for {method}:\n{(folder / 'log').read_text()[-2000:]}")
        for sample in map(json.loads, files[0].read_text("utf-8").splitlines()):
            said[method, ids[sample["doc_id"]]] = sample["filtered_resps"]
    return said


def ours(folder: Path, methods: Sequence[str], clips: Path, questions: int, dtype: str) -> Said:
    """Run `omnisink eval` once for all methods; the comparison is left out, as lmms-eval makes none."""
    options = {
        "model": "smolomni",
        "task": "synthav",
        "data": clips,
        "limit": questions,
        "dtype": dtype,
        "methods": ",".join(methods),
        "out": folder / "run",
    }
    _start(["omnisink", "eval", *_written(options), "--no-compare"], folder, clips)
    return {(one["method"], one["id"]): one["text"] or "" for one in read_parts(folder / "run")}


def check_same(before: Said, after: Said) -> None:
    """Refuse runs that answered other questions, or otherwise."""
    if before.keys() != after.keys():
        raise OmnisinkError(f"lmms-eval answered {len(before)} questions and omnisink {len(after)}, not the same ones")
    if other := [(*which, before[which], after[which]) for which in before if before[which] != after[which]]:
        raise OmnisinkError(
            f"{len(other)} of {len(before)} answers differ. The first (lmms-eval, omnisink): {other[0]}"
        )


def _written(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _start(command: Sequence[str], folder: Path, clips: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(omnisink.__file__).parents[1]),
        "HF_HUB_OFFLINE": "1",  # Neither waits for the network.
        "LMMS_EVAL_DATASETS_CACHE": str(folder / "datasets"),
        variable("synthav"): str(clips),
    }
    with (folder / "log").open("a", encoding="utf-8") as log:
        done = subprocess.run(
            [sys.executable, "-m", *command], stdout=log, stderr=log, env=env, cwd=folder, check=False
        )
    if done.returncode:
        raise OmnisinkError(f"{command[0]} failed:\n{(folder / 'log').read_text(encoding='utf-8')[-2000:]}")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the pairs, append them to the history and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=16, help="lmms-eval's; omnisink looks for its own")
    parser.add_argument("--methods", type=int, nargs="+", choices=[1, 4], default=[1, 4], help="how many at once")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of both")
    parser.add_argument("--dry-run", action="store_true", help="print, record nothing")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = folder / "clips"
        _start(["omnisink", "synthav", "--out", str(clips), "--n", str(given.questions)], folder, clips)
        for methods in (case for case in CASES if len(case) in given.methods):
            plain = Side(lambda at, m=methods: ours(at, m, clips, given.questions, given.dtype), folder)
            harness = Side(
                lambda at, m=methods: theirs(at, m, clips, given.questions, given.dtype, given.batch_size), folder
            )
            ratio = compare(plain.run, harness.run, given.pairs, warm_up=0)
            check_same(harness.said, plain.said)
            what = "one method" if len(methods) == 1 else f"{len(methods)} methods"
            case = f"{given.questions} questions, {what}, {given.dtype}, lmms-eval {version('lmms_eval')}"
            case += f" in batches of {given.batch_size}"
            clock, cpu = sum(harness.wall) / sum(plain.wall), sum(harness.cpu) / sum(plain.cpu)
            print(f"{case}: omnisink is {ratio.p50:.2f} times as fast ({ratio.p20:.2f} to {ratio.p80:.2f})")
            print(f"  clock: {sum(harness.wall):.0f} s and {sum(plain.wall):.0f} s, {clock:.2f} times")
            print(f"  processors: {sum(harness.cpu):.0f} s and {sum(plain.cpu):.0f} s, {cpu:.2f} times", flush=True)
            rows.append({"model": "lmms", "dtype": given.dtype, "case": case, **rounded(ratio)})
    if not given.dry_run:
        append(rows)
        write_lmms_table()


if __name__ == "__main__":
    main()
