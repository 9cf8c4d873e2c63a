"""`python -m benchmarks.gpu`: check and measure OutRo on a GPU, in at most 240 seconds."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.lines import Line
from benchmarks.gpu.options import CHECKS, PARTS, Options
from benchmarks.gpu.run import NoDevice, Run
from benchmarks.gpu.table import line_text

#: What is left out of a quick run: a model of this depth is compiled for half a minute or more.
NOT_QUICK = ("compiled",)
#: Seconds for a whole run, and for a quick one.
LIMIT, QUICK_LIMIT = 235.0, 58.0
#: Seconds that the checks of a whole run may take before the measurements begin, and those of a quick one.
CHECKS_LIMIT, QUICK_CHECKS_LIMIT = 90.0, 30.0


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer lengths and pairs, none compiled")
    parser.add_argument("--only", metavar="PARTS", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--skip-checks", action="store_true", help="only measure")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="for everything [default: 235; --quick: 58]")
    parser.add_argument("--part-limit", type=float, metavar="SECONDS", help="after which a part begins no other case")
    parser.add_argument(
        "--layers", type=int, default=0, help="how many are compiled [default: what there is time for]"
    )
    parser.add_argument("--workers", type=int, default=5, help="processes that share the families")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command itself")
    parser.add_argument("--shape", choices=("7b", "tiny"), default="7b", help="tiny: to try the command itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, also after every case")
    parser.add_argument("--no-history", action="store_true", help="append nothing to benchmarks/history.csv")
    parser.add_argument("--commit", help="what is measured, where git cannot say so")
    parser.add_argument("--before", action="store_true", help="record as measured before a change")
    parser.add_argument("--record", type=Path, metavar="FILE", help="run nothing: record what --json wrote elsewhere")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Run, print the table, record it, and return the exit status: 1 where a check failed."""
    asked = arguments(given)
    if asked.record is not None:
        record(json.loads(asked.record.read_text(encoding="utf-8")), asked.before)
        return 0
    parts = (
        tuple(asked.only.split(",")) if asked.only else tuple(p for p in PARTS if not (asked.quick and p in NOT_QUICK))
    )
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        print(f"unknown part {unknown[0]!r}: use some of {','.join(PARTS)}", file=sys.stderr)
        return 2
    parts = tuple(part for part in PARTS if part in parts and not (asked.skip_checks and part in CHECKS))
    begun = time.time()
    limit = asked.limit or (QUICK_LIMIT if asked.quick else LIMIT)
    results = asked.json or Path(tempfile.mkdtemp(prefix="omnisink-gpu-")) / "gpu.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = results.with_suffix(".lines")
    for old in (lines, lines.with_suffix(".log")):
        old.unlink(missing_ok=True)
    options = Options(
        results=str(lines.resolve()),
        device=asked.device,
        shape=asked.shape,
        quick=asked.quick,
        parts=parts,
        deadline=begun + limit,
        part_limit=asked.part_limit or (QUICK_CHECKS_LIMIT if asked.quick else CHECKS_LIMIT),
        layers=asked.layers,
    )
    if asked.device == "cpu" and not asked.part_limit:
        options = replace(options, part_limit=limit)
    run = Run(options, max(1, asked.workers) if asked.device == "cuda" else 1)
    try:
        run.everything()
    except NoDevice as error:
        print(f"{error}. To try the command itself: --device cpu --shape tiny --quick", file=sys.stderr)
        return 2
    found = {
        "where": {**run.where, **({"commit": asked.commit} if asked.commit else {})},
        "shape": asked.shape,
        "lines": [asdict(line) for line in run.lines],
        "seconds": round(time.time() - begun, 1),
    }
    results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    failed = show(run.lines, found)
    token_mask = asked.device == "cuda" and asked.shape == "7b"
    if token_mask and not asked.no_history:
        record(found, asked.before)
    return 1 if failed else 0


def show(lines: list[Line], found: dict[str, Any]) -> list[Line]:
    """Print the table and what failed, and return that. A check that was not run has not passed."""
    where = found["where"]
    print(f"\n{where.get('machine')}, torch {where.get('torch')}, triton {where.get('triton') or 'absent'}, ", end="")
    print(f"transformers {where.get('transformers')}, commit {where.get('commit')}, {found['seconds']} s")
    checks = [line for line in lines if line.part in CHECKS]
    failed = [line for line in checks if line.status in ("failed", "not run")]
    for line in lines:
        if line.part not in CHECKS:
            print(line_text(line))
    counts = {s: sum(line.status == s for line in checks) for s in ("passed", "failed", "skipped", "not run")}
    if checks:
        print("checks: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count))
    for line in failed:
        print(line_text(line))
    sys.stdout.flush()
    return failed


def record(found: dict[str, Any], before: bool) -> None:
    """Append what was measured to the history, and write the pages: the table of costs, and what ran on a GPU."""
    from benchmarks.gpu import table
    from benchmarks.history import HISTORY, PAGE, append
    from omnisink.verification.support_table import write_gpu_column
    from omnisink.verification.verify import Result

    if found["shape"] != "7b" or found["where"].get("device") != "cuda":
        print("nothing is recorded: this was a trial", file=sys.stderr)
        return
    where = {name: value for name, value in found["where"].items() if name not in ("device", "python")}
    lines = [Line(**values) for values in found["lines"]]
    measured = table.rows(lines, before)
    if measured:
        append(measured, HISTORY, where)
        table.write(HISTORY, PAGE)
        print(f"appended to {HISTORY.name}; the newest of every case are in {PAGE.name}")
    families = [line.data["family"] for line in lines if line.part == "families" and "family" in line.data]
    if families and not before:
        results = [Result(**{k: v for k, v in values.items() if k != "as_expected"}) for values in families]
        versions = {name: str(where[name]) for name in ("omnisink", "torch", "transformers")}
        page = PAGE.with_name("models.md")
        write_gpu_column(results, page, versions, str(where["machine"]), str(where["date"])[:10])
        print(f"the column for GPUs in the table of {page.name} is written")


if __name__ == "__main__":
    sys.exit(main())
