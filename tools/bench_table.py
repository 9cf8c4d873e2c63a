"""Write the tables of docs/benchmarks.md from benchmarks/history.csv; `make bench` ends with it."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).parents[1]
HISTORY = ROOT / "benchmarks" / "history.csv"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- generated from benchmarks/history.csv -->", "<!-- end -->"


def tables(history: Path = HISTORY) -> str:
    """Draw the newest line of every case, one table for each model and machine."""
    if not history.exists():
        return "No run has been recorded yet."
    with history.open(newline="", encoding="utf-8") as file:
        newest = {(r["machine"], r["threads"], r["model"], r["dtype"], r["case"]): r for r in csv.DictReader(file)}
    lines: list[str] = []
    shown = None
    for (machine, threads, model, dtype, case), row in newest.items():
        if shown != (machine, threads, model, dtype):
            shown = (machine, threads, model, dtype)
            place = machine if "GPU" in machine or "NVIDIA" in machine else f"{machine}, {threads} threads"
            lines += [
                *([""] if lines else []),
                f"### {model}, {dtype}, on {place}",
                "",
                "| case | ratio (median) | 20 % | 80 % | pairs | untouched | measured | torch |",
                "| --- | --- | --- | --- | --- | --- | --- | --- |",
            ]
        ratios = " | ".join(f"{float(row[p]):.3f}" for p in ("p50", "p20", "p80"))
        date = row["date"].split("T")[0]
        lines.append(
            f"| {case} | {ratios} | {row['pairs']} | {float(row['plain_ms']):,.1f} ms | {date} | {row['torch']} |"
        )
    return "\n".join(lines)


def page(text: str, history: Path = HISTORY) -> str:
    """Put the tables between the markers of the page's text."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(history)}\n\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
