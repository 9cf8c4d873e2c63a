"""The table of a run, with what is to be reached; and the same in the docs, from the history."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.lines import Line

#: What is to be reached, as a ratio to the baseline; for memory, as a share of the weights.
TARGETS = {
    "prefill 256": None,
    "prefill 768": 1.10,
    "prefill 4096": 1.02,
    "prefill 16384": 1.02,
    "memory 16384": 0.01,
    "decode eager, batch 1": 1.05,
    "decode eager, 16 left-padded": 1.05,
    "decode, CUDA graph captured by hand": 1.015,
    "decode, compiled (reduce-overhead)": 1.02,
    "decode, compiled (default)": None,
    # SinkRouter's own speed-ups, 1.25 and 2.03, were over an attention that copies keys and values.
    "router decode 32768, batch 1": None,
    "router decode 131072, batch 1": 0.80,
    "router decode 524288, batch 1": 0.493,
    "router decode 32768, batch 8": None,
    "router decode 131072, batch 8": 0.80,
    "router decode 524288, batch 8": 0.493,
}
#: Measured on 2026-11-26 on an H200 (torch 2.11, Triton 3.6, transformers 5.23, bfloat16), before there were kernels.
BEFORE = {
    "prefill 768": "4.77",
    "prefill 4096": "2.01",
    "prefill 16384": "1.62",
    "decode eager, batch 1": "1.46",
    "decode eager, 16 left-padded": "1.37",
    "decode, compiled (reduce-overhead)": "2.27, without a CUDA graph",
    "decode, compiled (default)": "1.09",
}
#: The same day, with hooks that do nothing in the place of the method.
HOOKS = {
    "prefill 256": "1.08",
    "prefill 768": "1.007",
    "prefill 4096": "0.98",
    "prefill 16384": "1.000",
    "decode eager, batch 1": "1.05",
    "decode, CUDA graph captured by hand": "1.0005",
}
#: Names what was measured in the history, in the place of a model; and the end of a case measured before a change.
MODEL, EARLIER = "gpu", ", before"
OPEN, CLOSE = "<!-- generated from benchmarks/history.csv: GPU -->", "<!-- end -->"


def shown(case: str, value: float) -> str:
    """Write a ratio, or the share of the weights that memory is."""
    return f"{value:.2%}" if case.startswith("memory") else f"{value:.3f}"


def line_text(line: Line) -> str:
    """Say in one line what came of a case."""
    if line.status != "measured" or line.p50 is None:
        status = line.status.upper() if line.status == "failed" else line.status
        return f"{line.part:9} {line.case:38} {status}  {line.detail}"
    target = TARGETS.get(line.case)
    mark = "" if target is None else f"  at most {shown(line.case, target)}: {'yes' if line.p50 <= target else 'NO'}"
    spread = f" ({shown(line.case, line.p20 or 0)} to {shown(line.case, line.p80 or 0)}, {line.pairs} pairs"
    spread += f", baseline {line.plain_ms:,.2f} ms)" if line.plain_ms is not None else ")"
    said = shown(line.case, line.p50) + (spread if line.plain_ms is not None else "")
    return f"{line.part:9} {line.case:38} {said}{mark}{'  ' + line.detail if line.detail else ''}"


def rows(lines: Iterable[Line], earlier: bool) -> list[dict[str, Any]]:
    """Turn what was measured into lines of the history."""
    return [
        {
            "model": MODEL,
            "dtype": "bfloat16",
            "case": line.case + (EARLIER if earlier else ""),
            "p20": line.p20,
            "p50": line.p50,
            "p80": line.p80,
            "plain_ms": "" if line.plain_ms is None else line.plain_ms,
            "pairs": line.pairs,
        }
        for line in lines
        if line.status == "measured" and line.p50 is not None
    ]


def drawn(history: Path) -> str:
    """Draw the table of the docs from the newest line of every case; "not measured" where there is none."""
    newest: dict[str, Mapping[str, str]] = {}
    if history.exists():
        with history.open(newline="", encoding="utf-8") as file:
            newest = {row["case"]: row for row in csv.DictReader(file) if row["model"] == MODEL}
    head = ["case", "before", "hooks only", "after", "20 % to 80 %", "reach", "baseline", "GPU and date"]
    drawn_lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for case, target in TARGETS.items():
        after, before = newest.get(case), newest.get(case + EARLIER)
        cells = [case, BEFORE.get(case, ""), HOOKS.get(case, "")]
        if before is not None:
            cells[1] = f"{shown(case, float(before['p50']))} ({before['machine']}, {before['date'][:10]})"
        cells += ["not measured", ""] if after is None else [shown(case, float(after["p50"])), _spread(case, after)]
        cells.append("" if target is None else f"at most {shown(case, target)}")
        cells.append(f"{float(after['plain_ms']):,.2f} ms" if after is not None and after["plain_ms"] else "")
        cells.append("" if after is None else f"{after['machine']}, {after['date'][:10]}")
        drawn_lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(drawn_lines)


def write(history: Path, page: Path) -> None:
    """Put the table into the page, between its two markers."""
    before, rest = page.read_text(encoding="utf-8").split(OPEN)
    after = rest.split(CLOSE, 1)[1]
    page.write_text(f"{before}{OPEN}\n\n{drawn(history)}\n\n{CLOSE}{after}", encoding="utf-8")


def _spread(case: str, row: Mapping[str, str]) -> str:
    if case.startswith("memory"):
        return ""
    return f"{shown(case, float(row['p20']))} to {shown(case, float(row['p80']))}"
