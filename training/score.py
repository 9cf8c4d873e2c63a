"""Ask SmolOmni the questions of a split, without OutRo and under its arms, and say what came out.

Every clip is an mp4 file that is read anew, every answer is generated greedily through `Loaded.inputs` and `generate`,
as a user would do it. Records are appended one by one, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnisink import OutRo, load_model
from omnisink.models.loaded import Loaded
from omnisink.questions.parsing import parse_letter, parse_yes_no
from omnisink.synthav.dataset import draw_split
from omnisink.synthav.questions import CATEGORIES, Question
from omnisink.synthav.render import render
from omnisink.synthav.scene import make_scene

YES_NO = "Answer yes or no."
_OPEN, _CLOSE = "<!-- scores -->", "<!-- end -->"
#: Arms in which a part of the clip is left out, and the categories for which that would say nothing.
REMOVED: dict[str, tuple[str, ...]] = {
    "no audio": ("visual", "existence"),
    "no video": ("audio", "existence"),
    "no clip": (),
}


def arm(name: str) -> Any:
    """Return the method of an arm: ``rotate 0.3``, ``relax``, ``both 0.3``, or None for the baseline."""
    kind, *strength = name.split()
    if kind == "rotate":
        return OutRo(gamma=float(strength[0]), relax=False)
    if kind == "relax":
        return OutRo(rotate=False)
    if kind == "both":
        return OutRo(gamma=float(strength[0]))
    return None


def asked(question: Question) -> str:
    """Write a question for yes or no with what it asks for; choices are put below by `Loaded.inputs`."""
    return question.text if question.choices else f"{question.text}\n{YES_NO}"


def parse(answer: str, question: Question) -> str | None:
    """Return the letter, or yes or no; None where the answer is neither."""
    if question.choices:
        return parse_letter(answer, len(question.choices))
    return parse_yes_no(answer)


def run(loaded: Loaded, split: Any, count: int, arms: list[str], folder: Path, out: Path) -> None:
    """Answer every question in every arm; what is in `out` already is not asked again."""
    done = {(r["arm"], r["id"]) for r in read(out)}
    number = 0
    folder.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        for scene, questions in draw_split(split, count):
            clip = folder / f"{scene.name}.mp4"
            for question in questions:
                number += 1
                todo = [a for a in arms if (a, number) not in done and question.category not in REMOVED.get(a, ())]
                if not todo:
                    continue
                if not clip.exists():
                    part = clip.with_suffix(".part")
                    render(scene, part)
                    part.replace(clip)
                shared: dict[str, Any] = {}
                for name in todo:
                    key = name if name in REMOVED else "both"
                    if key not in shared:
                        shared[key] = encode(loaded, question, clip, key)
                    text = generate(loaded, shared[key], arm(name))
                    said = parse(text, question)
                    record = {
                        "arm": name,
                        "id": number,
                        **question.to_dict(),
                        "said": text,
                        "parsed": said,
                        "right": said == question.answer,
                        "audio_tokens": shared[key].facts[0].audio_tokens,
                        "video_tokens": shared[key].facts[0].video_tokens,
                    }
                    file.write(json.dumps(record) + "\n")
                file.flush()


def encode(loaded: Loaded, question: Question, clip: Path, what: str) -> Any:
    """Make the inputs, with the sound or the picture left out where an arm says so."""
    media: dict[str, Any] = {"video": clip}
    if what == "no audio":
        media["audio"] = False
    if what == "no video":
        media = {"audio": clip}
    if what == "no clip":
        media = {}
    return loaded.inputs(asked(question), choices=question.choices or None, **media)


def generate(loaded: Loaded, inputs: Any, method: OutRo | None) -> str:
    """Return the greedy answer."""
    with torch.inference_mode(), nullcontext() if method is None else method(loaded.model):
        made = loaded.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    return loaded.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Read the records of a run."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)


def report(out: Path, base: str = "without") -> dict[str, Any]:
    """Sum up: accuracy by category with a 95 % interval, and paired differences from the baseline.

    Questions about one clip are not independent, so intervals come from drawing clips, 10,000 times.
    """
    records = list(read(out))
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for record in records:
        by_arm.setdefault(record["arm"], {})[record["id"]] = record
    result: dict[str, Any] = {}
    for name, answers in by_arm.items():
        rows: dict[str, Any] = {}
        for category in (*CATEGORIES, "all"):
            chosen = [r for r in answers.values() if category in (r["category"], "all")]
            if not chosen:
                continue
            rows[category] = {"questions": len(chosen), **interval(chosen, [float(r["right"]) for r in chosen])}
            if name != base and base in by_arm:
                plain = by_arm[base]
                differences = [float(r["right"]) - float(plain[r["id"]]["right"]) for r in chosen]
                rows[category]["difference"] = interval(chosen, differences)
                rows[category]["changed"] = sum(r["said"] != plain[r["id"]]["said"] for r in chosen)
        if category := {"no audio": "audio", "no video": "visual"}.get(name):
            chosen = [r for r in answers.values() if r["category"] == category and not given_away(r)]
            rows["untold"] = {"questions": len(chosen), **interval(chosen, [float(r["right"]) for r in chosen])}
        rows["unparsed"] = sum(r["parsed"] is None for r in answers.values())
        result[name] = rows
    return result


def given_away(record: dict[str, Any]) -> bool:
    """Tell whether the right choice about what is seen is heard in the clip too, or about what is heard is seen.

    Half the sounds belong to something on the screen, so what is left of a clip is a hint at what was taken away.
    """
    split, index = record["clip"].split("-")
    scene = make_scene(split, int(index))
    if record["category"] == "audio":
        other = {word for thing in scene.things for word in (thing.shape, thing.colour)}
    else:
        other = {word for sound in scene.sounds for word in (sound.kind, sound.word)}
    return record["choices"]["ABCD".index(record["answer"])] in other


def interval(records: list[dict[str, Any]], values: list[float], draws: int = 10_000) -> dict[str, float]:
    """Return the mean and its 95 % interval over clips drawn with replacement, in percent."""
    from scipy.stats import bootstrap

    clips = sorted({r["clip"] for r in records})
    sums, counts = np.zeros(len(clips)), np.zeros(len(clips))
    places = {clip: i for i, clip in enumerate(clips)}
    for record, value in zip(records, values, strict=True):
        sums[places[record["clip"]]] += value
        counts[places[record["clip"]]] += 1
    drawn = bootstrap(
        (sums, counts),
        lambda s, n, axis=-1: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return {
        "percent": round(100 * float(np.mean(values)), 2),
        "low": round(100 * float(drawn.low), 2),
        "high": round(100 * float(drawn.high), 2),
    }


def write_card(sums: dict[str, Any], card: Path) -> None:
    """Put the report into the model card, between its two markers."""
    names = [a for a in ("without", *REMOVED, *sums) if a in sums]
    names = list(dict.fromkeys(names))
    lines = [f"| category | questions | {' | '.join(names)} |", f"| --- | --- | {' | '.join('---' for _ in names)} |"]
    for category in (*CATEGORIES, "all"):
        cells = []
        for name in names:
            row = sums[name].get(category)
            partial = bool(REMOVED.get(name)) and category == "all"
            cells.append(
                "" if row is None or partial else f"{row['percent']:.1f} ({row['low']:.1f} to {row['high']:.1f})"
            )
        lines.append(f"| {category} | {sums['without'][category]['questions']} | {' | '.join(cells)} |")
    for name, words in (
        ("no audio", "audio questions whose answer is not on the screen"),
        ("no video", "visual questions whose answer is not heard"),
    ):
        if row := sums.get(name, {}).get("untold"):
            share = f"{row['percent']:.1f} ({row['low']:.1f} to {row['high']:.1f})"
            lines += ["", f"Of the {row['questions']} {words}, with {name}: {share}."]
    methods = [n for n in names if n not in REMOVED and n != "without"]
    if methods:
        lines += [
            "",
            "Paired difference from the baseline, in percentage points, and how many answers changed:",
            "",
        ]
        lines += [f"| category | {' | '.join(methods)} |", f"| --- | {' | '.join('---' for _ in methods)} |"]
        for category in (*CATEGORIES, "all"):
            cells = []
            for name in methods:
                row = sums[name][category]
                gap = row["difference"]
                cells.append(
                    f"{gap['percent']:+.2f} ({gap['low']:+.2f} to {gap['high']:+.2f}), {row['changed']} changed"
                )
            lines.append(f"| {category} | {' | '.join(cells)} |")
    before, rest = card.read_text(encoding="utf-8").split(_OPEN)
    card.write_text(
        f"{before}{_OPEN}\n\n" + "\n".join(lines) + f"\n\n{_CLOSE}{rest.split(_CLOSE, 1)[1]}", encoding="utf-8"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=["tune", "test"], required=True)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--arms", nargs="+", default=["without"])
    parser.add_argument("--clips", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--out", type=Path, required=True, help="records, as JSON lines")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--card", type=Path, help="write the report into this model card")
    given = parser.parse_args()
    run(load_model("smolomni", dtype=given.dtype), given.split, given.count, given.arms, given.clips, given.out)
    sums = report(given.out)
    print(json.dumps(sums, indent=2))
    if given.card:
        write_card(sums, given.card)
