"""One line for every measurement, with what is needed to read it later."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers

import omnisink

HISTORY = Path(__file__).with_name("history.csv")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MEDIA_PAGE = PAGE.with_name("media.md")
EVALUATION_PAGE = PAGE.with_name("eval.md")
#: What is in the place of a model's name where the measurement is of another part; each has a page of its own.
_PARTS = ("media", "evaluation", "gpu", "methods", "lmms")
_METHODS_OPEN = "<!-- generated from benchmarks/history.csv: methods -->"
_LMMS_OPEN = "<!-- generated from benchmarks/history.csv: lmms-eval -->"
_OPEN, _CLOSE = "<!-- generated from benchmarks/history.csv -->", "<!-- end -->"


def append(
    rows: Sequence[Mapping[str, object]], path: Path = HISTORY, where: Mapping[str, object] | None = None
) -> None:
    """Append measurements to the history.

    Parameters
    ----------
    rows : sequence of mapping
        The measurements.
    path : Path
        The history. A column that it does not have yet is added, empty in the lines before.
    where : mapping, optional
        `surroundings` of the measurements, where they are not those of this process.
    """
    common = surroundings() if where is None else where
    made = [{**common, **row} for row in rows]
    columns: list[str] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            before = list(reader)
    added = [name for name in dict.fromkeys(name for row in made for name in row) if name not in columns]
    if added:
        columns += added
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(before if len(columns) > len(added) else [])
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, columns, restval="").writerows(made)


def write_table(history: Path = HISTORY, page: Path = PAGE) -> None:
    """Put the newest line of every case of a model into the page, between its two markers."""
    _write(_newest(history, None), page, "model", "times the baseline", "baseline")


def write_media_table(history: Path = HISTORY, page: Path = MEDIA_PAGE) -> None:
    """Put the newest line of every case of reading files into its page."""
    _write(_newest(history, "media"), page, "", "times the other", "the other")


def write_evaluation_table(history: Path = HISTORY, page: Path = EVALUATION_PAGE) -> None:
    """Put the lines of the last run of a benchmark into its page: with other questions they are other cases."""
    rows = _newest(history, "evaluation")
    _write([row for row in rows if row["date"] == rows[-1]["date"]], page, "", "times the loop", "the loop")


def write_lmms_table(history: Path = HISTORY, page: Path = PAGE) -> None:
    """Put the newest line of every case into the page in which lmms-eval ran beside `omnisink eval`."""
    rows = _newest(history, "lmms")
    if not rows:
        _replace(page, _LMMS_OPEN, ["No pair has been recorded yet."])
        return
    _write(rows, page, "", "lmms-eval's time over omnisink's", "omnisink", mark=_LMMS_OPEN)


def write_methods_table(history: Path = HISTORY, page: Path = PAGE) -> None:
    """Put the newest lines of every method into the page: one line for each, with a column for each kind of pass.

    A method that changed nothing in the passes says so. What was measured on several machines has a line for each.
    """
    rows = _newest(history, "methods")
    parts = [(*row["case"].partition(": ")[::2], row) for row in rows]  # "NAME[, idle]: PASSES (MODEL)"
    kinds = list(dict.fromkeys(rest.partition(" (")[0] for _, rest, _ in parts))
    by_method: dict[tuple[str, str, str], dict[str, tuple[str, dict[str, str]]]] = {}
    for name, rest, row in sorted(parts, key=lambda part: part[2]["date"]):
        case, _, model = rest.rstrip(")").partition(" (")
        key = name.partition(", ")[0], model, row["machine"]
        by_method.setdefault(key, {})[case] = (name.partition(", ")[2], row)
    lines = [f"| method | model | {' | '.join(kinds)} | machine | date |", "| --- " * (len(kinds) + 4) + "|"]
    for (name, model, machine), found in by_method.items():
        cells = [_cell(*found[case]) if case in found else "–" for case in kinds]
        last = max((row for _, row in found.values()), key=lambda row: row["date"])
        where = f"{machine}, {last['threads']} threads, load {last['load']}"
        lines.append(f"| `{name}` | {model} | {' | '.join(cells)} | {where} | {last['date'][:10]} |")
    _replace(page, _METHODS_OPEN, lines)


def _cell(remark: str, row: Mapping[str, str]) -> str:
    spread = (
        f"{float(row['p20']):.3f} to {float(row['p80']):.3f}; {row['pairs']} pairs of {float(row['plain_ms']):,.0f} ms"
    )
    return f"{float(row['p50']):.3f} ({spread}{'; changed nothing' if remark else ''})"


def _newest(history: Path, part: str | None) -> list[dict[str, str]]:
    with history.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["model"] if r["model"] in _PARTS else None) == part]
    return list({(row["machine"], row["model"], row["dtype"], row["case"]): row for row in rows}.values())


def _write(rows: list[dict[str, str]], page: Path, first: str, ratio: str, plain: str, mark: str = _OPEN) -> None:
    names = [*([first] if first else []), "case", ratio, "20 % to 80 %", plain, "pairs", "machine", "date"]
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
    lines += [
        f"| {r['model'] + ', ' + r['dtype'] + ' | ' if first else ''}{r['case']} | {float(r['p50']):.3f} | "
        f"{float(r['p20']):.3f} to {float(r['p80']):.3f} | {float(r['plain_ms']):,.0f} ms | {r['pairs']} | "
        f"{r['machine']}, {r['threads']} threads, load {r['load']} | {r['date'][:10]} |"
        for r in rows
    ]
    _replace(page, mark, lines)


def _replace(page: Path, mark: str, lines: Sequence[str]) -> None:
    before, rest = page.read_text(encoding="utf-8").split(mark)
    after = rest.split(_CLOSE, 1)[1]
    page.write_text(f"{before}{mark}\n\n" + "\n".join(lines) + f"\n\n{_CLOSE}{after}", encoding="utf-8")


def surroundings() -> dict[str, object]:
    """Date, versions and machine of a measurement."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "omnisink": omnisink.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "triton": _triton(),
        "transformers": transformers.__version__,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HISTORY.parent, check=False
        )
    except OSError:  # no git: a copy of the sources
        return "unknown"
    return found.stdout.strip() or "unknown"


def _triton() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
