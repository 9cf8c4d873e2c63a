"""`omnisink demo`: a clip, what is seen and heard in it, without and with OutRo, and where the sinks are."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import media, method_options, options
from omnisink.cli.output import check_writable, note, print_json, stdout, text, working
from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    from rich.console import Console

    from omnisink.methods.outro import OutRo

MODEL = "smolomni"
#: What the model's card measures, so that nobody takes the answers below for more than they are.
STYLE = (
    "It knows drawn scenes of eight objects. On clips of a program that it was not trained with it named 64 of 64 "
    "colours and 63 of 64 shapes. Photographs mean nothing to it."
)
#: From SynthAV's tune split, on which the strength for SmolOmni was chosen.
CLIP = Path(__file__).with_name("demo.mp4")
#: Questions about the clip, what is right, and what has to be heard or seen for it. The first was chosen because the
#: paper's strength moves SmolOmni on it visibly; most questions about this clip move by less than a hundredth.
QUESTIONS: list[tuple[str, tuple[str, ...], str, str]] = [
    ("Is there a purple clock in the video?\nAnswer yes or no.", (), "no", "needs the picture"),
    ("Which sound is heard?", ("clock", "bell", "drum", "buzz"), "A", "needs the sound"),
    ("What is on screen when the clock sounds?", ("circle", "clock", "star", "bird"), "B", "needs picture and sound"),
]
#: The strength that the paper uses for Qwen2.5-Omni.
PAPER = 3.0
NEW_TOKENS = 8
#: Enough for a median and its spread, and the most seconds they may take: a busy machine measures fewer.
PAIRS = 9
SECONDS = 8.0
DECODED = 8
#: Paired runs whose ratios lie further apart than this say more about the machine than about the method.
SPREAD = 1.3
NEXT = (
    "omnisink demo --clip clip.mp4  # the clip as a file, and what to ask about it",
    "omnisink eval --task synthav --limit 150 --out runs/first  # does it help? 150 questions",
)


def demo(
    gamma: method_options.GammaOption = None,
    sheet: Annotated[str, typer.Option("--sheet", metavar="FILE", help="Where the frames are drawn, as PNG.")] = (
        "omnisink-demo.png"
    ),
    clip: Annotated[
        str | None, typer.Option("--clip", metavar="FILE", help="Only write the shipped clip there, to ask about it.")
    ] = None,
    json: options.JsonFlag = False,
) -> None:
    """Ask SmolOmni about a shipped clip, at two strengths of OutRo, and draw its sinks. Under a minute if idle."""
    if clip is not None:
        _write_clip(clip)
        return
    check_writable(sheet)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    method = method_options.make_outro(MODEL, gamma)
    methods = _strengths(method, "chosen with --gamma" if gamma is not None else "tuned for this model")
    # float32 on the CPU: the same numbers on every machine, but for rounding.
    loaded = options.load(MODEL, options.LoadingOptions(device="cpu", dtype="float32"))
    from omnisink.cli.measure import compare_answers, compare_cost
    from omnisink.cli.picture import draw_sinks
    from omnisink.media import read_clip
    from omnisink.media.sheet import contact_sheet
    from omnisink.methods.find import find_sinks
    from omnisink.methods.modality import count_by_modality, label_tokens
    from omnisink.models.adapters.qwen_frames import QwenFrames

    with working("reading the clip"):
        shown = read_clip(CLIP, frames=QwenFrames(), audio_rate=16_000)
        assert shown.frames is not None
        assert shown.times is not None
        contact_sheet(shown.frames, shown.times, sheet)
    answered = []
    for question, choices, right, needs in QUESTIONS:
        with working(question):
            inputs = loaded.inputs(question, video=CLIP, choices=choices or None)
            made = compare_answers(loaded, inputs, [None, *methods.values()], right, NEW_TOKENS)
        rows = [{"name": name} | one for name, one in zip(("baseline", *methods), made, strict=True)]
        answered.append({"question": question, "choices": choices, "right": right, "needs": needs, "answers": rows})
    with working("looking for sinks"):
        spans = loaded.spans(inputs)[0]
        sinks = find_sinks(loaded.model, **inputs)
        counts = count_by_modality(sinks, spans)
        tokens = options.token_texts(loaded, inputs["input_ids"][0].tolist())
    with working("measuring the cost"):
        cost = compare_cost(loaded.model, inputs, method, pairs=PAIRS, decoded=DECODED, seconds=SECONDS)
    cores = os.cpu_count()
    if json:
        import json as writer

        print_json(
            {
                "format": "omnisink.demo.v3",
                "model": options.describe(loaded),
                "methods": {name: {"name": type(one).__name__, **asdict(one)} for name, one in methods.items()},
                "generation": {"max_new_tokens": NEW_TOKENS, "do_sample": False},
                "clip": shown.record.to_dict(),
                "sheet": sheet,
                "answers": answered,
                "facts": asdict(inputs.facts[0]),
                "sinks": writer.loads(sinks.to_json(tokens)),
                "by_modality": [asdict(count) for count in counts],
                "cost": cost,
                "machine": {"cores": cores, "load": load},
                "versions": options.versions(),
            }
        )
        return
    out = stdout()
    _head(out, "Model")
    out.print(text(f"{loaded.model.name_or_path}, {loaded.source}, {loaded.model.dtype} on {loaded.model.device}"))
    out.print(text(STYLE))
    _head(out, "Clip")
    facts = inputs.facts[0]
    out.print(
        text(
            f"{CLIP.name}: {shown.record.duration:.1f} s, {len(shown.times)} frames as {facts.video_tokens} video "
            f"tokens, {facts.audio_seconds:.1f} s of sound as {facts.audio_tokens} audio tokens\n"
            f"frames drawn to {sheet}"
        )
    )
    for asked in answered:
        _head(out, f"{asked['question']}  [{asked['needs']}]")
        _answers(out, asked)
    _head(out, "Sinks: tokens whose largest activation |h| is massive")
    out.print(text(sinks.table(label_tokens(tokens, spans))))
    out.print(text("\n" + media.summary(counts) + "\n\n" + draw_sinks(sinks, spans)))
    _head(out, f"What OutRo cost, median of {cost['decode']['pairs']} paired runs (20th to 80th percentile)")
    for name, what in (("prefill", f"{len(tokens)} prompt tokens"), ("decode", f"{DECODED} generated tokens")):
        out.print(text(f"{name:8} {cost_line(cost[name], what, load, cores)}"))
    out.print(
        text(
            "\nA larger gamma turns the head outputs further. Three questions show what the method does,\n"
            "not whether it helps.\n\nNext:"
        )
    )
    for line in NEXT:
        out.print(text(f"  {line}"))


def cost_line(part: dict[str, float], what: str, load: float | None, cores: int | None) -> str:
    """Say what a method cost, or that this machine was too busy to tell.

    Parameters
    ----------
    part : dict
        One entry of `compare_cost`.
    what : str
        What was run.
    load : float or None
        Processes that wanted a core before the demo began; None where the system does not say.
    cores : int or None
        Cores of the machine.

    Returns
    -------
    str
        The ratio with its range, or the range with the reason why it is no figure of the method.
    """
    crowd = "" if load is None else f"; load {load:.1f} on {cores} cores before it began"
    spread = f"{part['ratio_p20']:.3f} to {part['ratio_p80']:.3f}"
    busy = load is not None and cores is not None and load > cores / 2
    if busy or part["ratio_p80"] > SPREAD * part["ratio_p20"]:
        return f"not measurable, the machine was busy ({spread} x{crowd})"
    return f"{part['ratio']:.3f} x ({spread}), {part['without_ms']:.0f} ms without, for {what}{crowd}"


def _strengths(method: OutRo, why: str) -> dict[str, OutRo]:
    """Return the method at its strength and at the paper's, by what they are called."""
    found = {f"gamma {method.gamma:g}, {why}": method}
    if method.gamma != PAPER:
        found[f"gamma {PAPER:g}, the paper's for a larger model"] = replace(method, gamma=PAPER)
    return found


def _write_clip(path: str) -> None:
    check_writable(path)
    try:
        shutil.copyfile(CLIP, path)
    except OSError as error:
        raise OmnisinkError(f"cannot write {path}: {error.strerror or error}") from error
    question, choices = next((question, choices) for question, choices, *_ in QUESTIONS if choices)
    print(path)
    note(f'ask about it: omnisink ask {path} "{question}" --choices {" ".join(choices)} --compare')


def _head(out: Console, title: str) -> None:
    from rich.text import Text

    out.print()
    out.print(Text(title, style="bold"))


def _answers(out: Console, asked: dict[str, Any]) -> None:
    if asked["choices"]:
        lettered = zip("ABCD", asked["choices"], strict=False)
        out.print(text("  ".join(f"{letter}. {choice}" for letter, choice in lettered)))
    right = asked["right"]
    width = max(len(row["name"]) for row in asked["answers"])
    for row in asked["answers"]:
        mark = "right" if row["answer"] == right else f"wrong, it is {right}"
        out.print(text(f"{row['name']:{width}}  {row['answer']} ({mark})  P({right}) = {row['probability']:.3f}"))
