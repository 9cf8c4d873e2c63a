"""`omnisink demo`: a real sink, two answers, and what the method cost, on the embedded model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omnisink.cli import options
from omnisink.cli.output import note, print_json, stdout, text, working

if TYPE_CHECKING:
    from rich.console import Console

STORY = """A lighthouse stood on a rock called the Widow. Its keeper, Marta Lind, wrote one line in her logbook every \
evening: the wind, the ships, and anything strange. On the third of March she wrote that the fog bell had rung \
nineteen times although nobody had touched the rope. On the fourth she found the reason. A grey seal had climbed the \
stairs of the landing, and each time a wave lifted it, its back pushed against the loose end of the rope. Marta tied \
the rope higher, gave the seal a herring, and wrote: wind from the north, two ships, bell ringer dismissed. The seal \
came back every spring for six years, and the harbour children called it the bell ringer."""
QUESTION = "Why did the fog bell ring? Answer in one sentence."
PROMPT = f"Answer the question from the text.\n\nText: {STORY}\n\nQuestion: {QUESTION}"

NEW_TOKENS = 32
#: Enough for a median and its spread; fewer on a machine so busy that they would take longer than that many seconds.
PAIRS = 15
SECONDS = 20.0
DECODED = 12


def demo(gamma: options.GammaOption = None, json: options.JsonFlag = False) -> None:
    """Find a real sink in SmolLM2-135M and answer a question without and with OutRo. Under a minute on two cores."""
    method = options.make_outro("smollm2-135m", gamma)
    # float32 on the CPU: the same numbers on every machine, but for rounding.
    loaded = options.load("smollm2-135m", device="cpu", dtype="float32")
    from omnisink.cli.measure import compare_answers, compare_cost
    from omnisink.methods.find import find_sinks

    inputs = loaded.chat(PROMPT)
    tokens = options.token_texts(loaded, inputs["input_ids"][0].tolist())
    with working("looking for sinks"):
        sinks = find_sinks(loaded.model, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    with working("answering without and with OutRo"):
        both = compare_answers(loaded, inputs, method, NEW_TOKENS)
    with working("measuring the cost"):
        cost = compare_cost(loaded.model, inputs, method, pairs=PAIRS, decoded=DECODED, seconds=SECONDS)
    if json:
        import json as writer

        print_json(
            {
                "format": "omnisink.demo.v1",
                "model": options.describe(loaded),
                "method": {"name": type(method).__name__, **asdict(method)},
                "generation": {"max_new_tokens": NEW_TOKENS, "do_sample": False},
                "prompt": PROMPT,
                "prompt_tokens": len(tokens),
                "sinks": writer.loads(sinks.to_json(tokens)),
                **both,
                "cost": cost,
                "versions": options.versions(),
            }
        )
        return
    out = stdout()
    _head(out, "Model")
    out.print(text(f"{loaded.model.name_or_path}, {loaded.source}, {loaded.model.dtype} on {loaded.model.device}"))
    _head(out, f"Prompt, {len(tokens)} tokens")
    out.print(text(f"{STORY}\n{QUESTION}"))
    _head(out, "Sinks: tokens whose largest activation |h| is massive")
    out.print(text(sinks.table(tokens)))
    _head(out, "Answer without OutRo")
    out.print(text(both["answers"]["without"]))
    _head(out, f"Answer with {options.brief(method)}")
    out.print(text(both["answers"]["with"]))
    _head(out, "What it did")
    out.print(_deeds(both))
    _head(out, f"What it cost, median of {cost['decode']['pairs']} paired runs (20th to 80th percentile)")
    for name, what in (("prefill", f"{len(tokens)} prompt tokens"), ("decode", f"{DECODED} generated tokens")):
        part = cost[name]
        out.print(
            f"{name:8} {part['ratio']:.3f} x ({part['ratio_p20']:.3f} to {part['ratio_p80']:.3f}), "
            f"{part['without_ms']:.0f} ms without, for {what}"
        )
    note(
        "\ngamma is a property of the model: 0.3 is gentle on this one, the paper's 3 too strong. Try --gamma 3.\n"
        "One prompt shows what the method does, not whether it helps."
    )


def _head(out: Console, title: str) -> None:
    from rich.text import Text

    out.print()
    out.print(Text(title, style="bold"))


def _deeds(both: dict[str, Any]) -> str:
    rotated, relaxed, moved = both["rotated_tokens"], both["relaxed"], both["next_token"]
    if not rotated and not relaxed:
        return "nothing: no token was rotated and no mask relaxed"
    lines = []
    if relaxed:
        where = ", ".join(f"position {position} at layer {layer}" for layer, _, position in relaxed)
        lines.append(f"let the sink see the whole prompt ({where})")
    if rotated:
        lines.append(f"rotated {max(rotated.values())} tokens at layers {min(rotated)} to {max(rotated)}")
    lines.append(
        f"moved the distribution of the next token: KL(without || with) {moved['kl_nats']:.4f} nats, "
        f"total variation {moved['total_variation']:.4f}"
    )
    return "\n".join(lines)
