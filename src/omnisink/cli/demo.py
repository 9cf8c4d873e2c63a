"""`omnisink demo`: a clip, what is seen and heard in it, without and with OutRo, and where the sinks are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisink.cli import media, method_options, options
from omnisink.cli.output import check_writable, note, print_json, stdout, text, working

if TYPE_CHECKING:
    from rich.console import Console

MODEL = "smolomni"
CLIP = Path(__file__).with_name("demo.mp4")
#: Questions about the clip, what is right, and what has to be heard or seen for it.
QUESTIONS: list[tuple[str, tuple[str, ...], str, str]] = [
    ("Is there an orange clock in the video?\nAnswer yes or no.", (), "no", "needs the picture"),
    ("Which sound is heard?", ("clock", "bell", "drum", "buzz"), "A", "needs the sound"),
    ("What is on screen when the clock sounds?", ("circle", "clock", "star", "bird"), "B", "needs picture and sound"),
]
NEW_TOKENS = 8
#: Enough for a median and its spread, and the most seconds they may take: a busy machine measures fewer.
PAIRS = 9
SECONDS = 15.0
DECODED = 8


def demo(
    gamma: method_options.GammaOption = None,
    sheet: Annotated[str, typer.Option("--sheet", metavar="FILE", help="Where the frames are drawn, as PNG.")] = (
        "omnisink-demo.png"
    ),
    json: options.JsonFlag = False,
) -> None:
    """Ask SmolOmni about a shipped clip, without and with OutRo, and show its sinks. Under two minutes."""
    check_writable(sheet)
    method = method_options.make_outro(MODEL, gamma)
    # float32 on the CPU: the same numbers on every machine, but for rounding.
    loaded = options.load(MODEL, options.LoadingOptions(device="cpu", dtype="float32"))
    from omnisink.cli.measure import compare_answers, compare_cost
    from omnisink.media import read_clip
    from omnisink.media.sheet import contact_sheet
    from omnisink.methods.find import find_sinks
    from omnisink.methods.modality import count_by_modality, label_tokens
    from omnisink.models.adapters.qwen_frames import QwenFrames

    with working("reading the clip"):
        clip = read_clip(CLIP, frames=QwenFrames(), audio_rate=16_000)
        assert clip.frames is not None
        assert clip.times is not None
        contact_sheet(clip.frames, clip.times, sheet)
    answered = []
    for question, choices, right, needs in QUESTIONS:
        with working(question):
            inputs = loaded.inputs(question, video=CLIP, choices=choices or None)
            both = compare_answers(loaded, inputs, method, NEW_TOKENS)
        answered.append({"question": question, "choices": choices, "right": right, "needs": needs, **both})
    with working("looking for sinks"):
        spans = loaded.spans(inputs)[0]
        sinks = find_sinks(loaded.model, **inputs)
        counts = count_by_modality(sinks, spans)
        tokens = options.token_texts(loaded, inputs["input_ids"][0].tolist())
    with working("measuring the cost"):
        cost = compare_cost(loaded.model, inputs, method, pairs=PAIRS, decoded=DECODED, seconds=SECONDS)
    if json:
        import json as writer

        print_json(
            {
                "format": "omnisink.demo.v2",
                "model": options.describe(loaded),
                "method": {"name": type(method).__name__, **asdict(method)},
                "generation": {"max_new_tokens": NEW_TOKENS, "do_sample": False},
                "clip": clip.record.to_dict(),
                "sheet": sheet,
                "answers": answered,
                "facts": asdict(inputs.facts[0]),
                "sinks": writer.loads(sinks.to_json(tokens)),
                "by_modality": [asdict(count) for count in counts],
                "cost": cost,
                "versions": options.versions(),
            }
        )
        return
    out = stdout()
    _head(out, "Model")
    out.print(text(f"{loaded.model.name_or_path}, {loaded.source}, {loaded.model.dtype} on {loaded.model.device}"))
    _head(out, "Clip")
    facts = inputs.facts[0]
    out.print(
        text(
            f"{CLIP.name}: {clip.record.duration:.1f} s, {len(clip.times)} frames as {facts.video_tokens} video "
            f"tokens, {facts.audio_seconds:.1f} s of sound as {facts.audio_tokens} audio tokens\n"
            f"frames drawn to {sheet}"
        )
    )
    for one in answered:
        _head(out, f"{one['question']}  [{one['needs']}]")
        _answers(out, one, method_options.brief(method))
    _head(out, "Sinks: tokens whose largest activation |h| is massive")
    out.print(text(sinks.table(label_tokens(tokens, spans))))
    out.print(text("\n" + media.summary(counts)))
    _head(out, f"What OutRo cost, median of {cost['decode']['pairs']} paired runs (20th to 80th percentile)")
    for name, what in (("prefill", f"{len(tokens)} prompt tokens"), ("decode", f"{DECODED} generated tokens")):
        part = cost[name]
        out.print(
            f"{name:8} {part['ratio']:.3f} x ({part['ratio_p20']:.3f} to {part['ratio_p80']:.3f}), "
            f"{part['without_ms']:.0f} ms without, for {what}"
        )
    note("\nThree answers show what the method does, not whether it helps.")


def _head(out: Console, title: str) -> None:
    from rich.text import Text

    out.print()
    out.print(Text(title, style="bold"))


def _answers(out: Console, one: dict[str, Any], brief: str) -> None:
    choices = one["choices"]
    if choices:
        out.print(text("  ".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=False))))
    width = max(len("without OutRo"), len(brief))
    for name, title in (("without", "without OutRo"), ("with", brief)):
        answer = one["answers"][name]
        mark = "right" if answer == one["right"] else f"wrong, it is {one['right']}"
        out.print(text(f"{title:{width}}  {answer}  ({mark})"))
    moved = one["next_token"]
    out.print(
        text(
            f"{'moved by':{width}}  KL(without || with) {moved['kl_nats']:.4f} nats, "
            f"total variation {moved['total_variation']:.4f}"
        )
    )
