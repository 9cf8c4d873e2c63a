"""Throughput of `omnisink eval` against a loop of single questions that decodes as it goes (SynthAV, SmolOmni)."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.history import append, write_evaluation_table
from benchmarks.pairs import compare, rounded, seconds
from omnisink import load_model
from omnisink.evaluation.running.asking import SCORES
from omnisink.evaluation.running.prefetch import prompt_of
from omnisink.evaluation.running.run import Settings, run
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.task import find_task
from omnisink.methods.registry import parse_methods
from omnisink.methods.shipped import default_outro
from omnisink.models.adapters.asking import answer
from omnisink.models.loaded import Loaded

METHODS = parse_methods("baseline,outro,outro:rotate,outro:relax", default_outro("smolomni"))


def loop(loaded: Loaded, instances: Sequence[Instance]) -> dict[tuple[str, str], str]:
    """Ask one question at a time under every method, reading its clip each time, as a script would."""
    said = {}
    for name, method in METHODS.items():
        for instance in instances:
            inputs = loaded.adapter.encode(loaded, [prompt_of(loaded, instance)])
            got = answer(loaded, inputs, max_new_tokens=instance.max_new_tokens, method=method)
            said[name, instance.id] = got[0].text
    return said


def main() -> None:
    """Run the pairs and append them to the history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=SCORES)
    given = parser.parse_args()
    loaded = load_model("smolomni")
    instances = find_task("synthav").load(limit=given.questions)
    device = torch.device("cpu")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for score in given.scores:

            def ours(score: str = score) -> float:
                shutil.rmtree(Path(folder) / score, ignore_errors=True)
                return seconds(lambda: run(loaded, instances, Settings(METHODS, score), Path(folder) / score), device)

            # The first pair is not counted; it also finds the batch size anew each time, as a user's run does.
            ratio = compare(lambda: seconds(lambda: loop(loaded, instances), device), ours, given.pairs, warm_up=0)
            each = ratio.plain_ms / len(instances)
            case = f"{len(instances)} questions, {len(METHODS)} methods, {score}"
            spread = f"{ratio.p20:.3f} to {ratio.p80:.3f}"
            print(f"{case}: {ratio.p50:.3f} of the loop's time ({spread}), {each:.0f} ms a question there")
            rows.append({"model": "evaluation", "dtype": "float32", "case": case, **rounded(ratio)})
    append(rows)
    write_evaluation_table()


if __name__ == "__main__":
    main()
