"""One line for every measurement, with what is needed to read it later."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import subprocess
from pathlib import Path

import torch
import transformers

import omnisink

HISTORY = Path(__file__).with_name("history.csv")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MEDIA_PAGE = PAGE.with_name("media.md")
EVALUATION_PAGE = PAGE.with_name("eval.md")
#: What is in the place of a model's name where the measurement is of another part; each has a page of its own.
_PARTS = ("media", "evaluation")
_OPEN, _CLOSE = "<!-- generated from benchmarks/history.csv -->", "<!-- end -->"


def append(rows: list[dict[str, object]], path: Path = HISTORY) -> None:
    """Append measurements to the history; columns are the first line's."""
    common = surroundings()
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*common, *rows[0]])
        if new:
            writer.writeheader()
        writer.writerows({**common, **row} for row in rows)


def write_table(history: Path = HISTORY, page: Path = PAGE) -> None:
    """Put the newest line of every case of a model into the page, between its two markers."""
    _write(_newest(history, None), page, "model", "times the untouched model", "untouched")


def write_media_table(history: Path = HISTORY, page: Path = MEDIA_PAGE) -> None:
    """Put the newest line of every case of reading files into its page."""
    _write(_newest(history, "media"), page, "", "times the other", "the other")


def write_evaluation_table(history: Path = HISTORY, page: Path = EVALUATION_PAGE) -> None:
    """Put the lines of the last run of a benchmark into its page: with other questions they are other cases."""
    rows = _newest(history, "evaluation")
    _write([row for row in rows if row["date"] == rows[-1]["date"]], page, "", "times the loop", "the loop")


def _newest(history: Path, part: str | None) -> list[dict[str, str]]:
    with history.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["model"] if r["model"] in _PARTS else None) == part]
    return list({(row["machine"], row["model"], row["dtype"], row["case"]): row for row in rows}.values())


def _write(rows: list[dict[str, str]], page: Path, first: str, ratio: str, plain: str) -> None:
    names = [*([first] if first else []), "case", ratio, "20 % to 80 %", plain, "pairs", "machine", "date"]
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
    lines += [
        f"| {r['model'] + ', ' + r['dtype'] + ' | ' if first else ''}{r['case']} | {float(r['p50']):.3f} | "
        f"{float(r['p20']):.3f} to {float(r['p80']):.3f} | {float(r['plain_ms']):,.0f} ms | {r['pairs']} | "
        f"{r['machine']}, {r['threads']} threads, load {r['load']} | {r['date'][:10]} |"
        for r in rows
    ]
    before, rest = page.read_text(encoding="utf-8").split(_OPEN)
    after = rest.split(_CLOSE, 1)[1]
    page.write_text(f"{before}{_OPEN}\n\n" + "\n".join(lines) + f"\n\n{_CLOSE}{after}", encoding="utf-8")


def surroundings() -> dict[str, object]:
    """Date, versions and machine of a measurement."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "omnisink": omnisink.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HISTORY.parent, check=False
    )
    return found.stdout.strip() or "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
