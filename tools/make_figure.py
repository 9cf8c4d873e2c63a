"""Draw the attention sink of the real model: the picture of the README (`make figure`).

Left, the largest activation of every token at every layer, with the sinks that `find_sinks` reports outlined. Right,
the same numbers for the sink alone, beside the threshold of the criterion and the range of all other tokens. Two files
are written, for light and for dark pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.patches import Rectangle

from omnisink import SinkMap, find_sinks, load_model
from omnisink.plotting.palette import DARK, LIGHT, Look

ROOT = Path(__file__).parents[1]
PROMPT = "A lighthouse keeper writes down every ship that passes. Which ship came last, and why did nobody see it?"


@dataclass(frozen=True)
class Measured:
    """What one forward pass shows."""

    largest: torch.Tensor  # (L, S), largest |h| of each token
    threshold: torch.Tensor  # (L,), what the criterion asks for
    sinks: SinkMap
    tokens: list[str]


def measure() -> Measured:
    """Run the prompt once for the residual stream and once for the sinks."""
    loaded = load_model("smollm2-135m", device="cpu", dtype="float32")
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    with torch.inference_mode():
        streams = loaded.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    entering = torch.stack([h[0].abs() for h in streams[: loaded.model.config.num_hidden_layers]])
    threshold = (1000 * entering.flatten(1).median(dim=1).values).clamp(min=100)
    tokens = loaded.tokenizer.convert_ids_to_tokens(ids[0].tolist())
    return Measured(entering.amax(dim=2), threshold, find_sinks(loaded.model, input_ids=ids), tokens)


def readable(token: str) -> str:
    """Show a byte-level token as text."""
    return token.replace("Ġ", "").replace("Ċ", "⏎").replace("<|im_start|>", "<start>").replace("<|im_end|>", "<end>")


def spans(sinks: SinkMap) -> list[tuple[int, int, int]]:
    """Group the sinks of the first sequence as (position, first layer, last layer)."""
    found: list[tuple[int, int, int]] = []
    for position in sorted({p for layer in sinks.layers for p in sinks.positions(layer)}):
        for layer in (layer for layer in sinks.layers if position in sinks.positions(layer)):
            if found and found[-1][0] == position and found[-1][2] == layer - 1:
                found[-1] = (position, found[-1][1], layer)
            else:
                found.append((position, layer, layer))
    return found


def draw_layers(ax: Axes, seen: Measured, look: Look) -> QuadMesh:
    """Heat map of layers by positions, with the sinks outlined."""
    depth, length = seen.largest.shape
    ramp = LinearSegmentedColormap.from_list("omnisink", list(look.heat))
    mesh = ax.pcolormesh(seen.largest.numpy(), cmap=ramp, norm=LogNorm(1, 30_000), linewidth=0)
    for position, first, last in spans(seen.sinks):
        size = last - first + 1
        box = Rectangle((position, first), 1, size, fill=False, edgecolor=look.series[1], linewidth=1.8, zorder=3)
        ax.add_patch(box)
    ax.set_xticks([p + 0.5 for p in range(length)], [readable(t) for t in seen.tokens], rotation=90, fontsize=6.2)
    ax.set_yticks([layer + 0.5 for layer in range(0, depth, 5)], [str(layer) for layer in range(0, depth, 5)])
    ax.set_ylabel("layer")
    ax.set_title("Largest activation of every token, layer by layer", loc="left", fontsize=9.5, pad=9)
    return mesh


def draw_rule(ax: Axes, seen: Measured, look: Look) -> None:
    """Draw the sink token against the threshold and against all other tokens."""
    sink = seen.sinks.positions(seen.sinks.layers[0])[0]
    rest = seen.largest[:, [p for p in range(len(seen.tokens)) if p != sink]]
    layers = [layer + 0.5 for layer in range(len(seen.largest))]
    ax.plot(seen.largest[:, sink], layers, color=look.series[1], linewidth=1.8, label="token 0")
    ax.plot(seen.threshold, layers, color=look.soft, linewidth=1.3, linestyle=(0, (4, 2)), label="threshold")
    ax.fill_betweenx(
        layers, rest.amin(dim=1), rest.amax(dim=1), color=look.heat[2], alpha=0.45, linewidth=0, label="all others"
    )
    ax.set_xscale("log")
    ax.set_xlim(0.3, 200_000)
    ax.set_xticks([1, 100, 10_000], ["1", "100", "10,000"])
    ax.minorticks_off()
    ax.set_xlabel("largest |h|")
    ax.tick_params(labelleft=False)
    ax.set_title("Token 0 and the threshold", loc="left", fontsize=9.5, pad=9)
    ax.legend(loc="lower right", fontsize=7, frameon=False, handlelength=1.6, borderaxespad=0.1, labelspacing=0.6)


def draw(seen: Measured, name: str, look: Look) -> Path:
    """Write one picture, for pages of one kind."""
    style = {
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "text.color": look.ink,
        "axes.labelcolor": look.ink,
        "axes.edgecolor": look.soft,
        "axes.linewidth": 0.6,
        "xtick.color": look.ink,
        "ytick.color": look.ink,
    }
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(9.0, 4.1), width_ratios=(2.5, 1), sharey=True, layout="constrained"
        )
        mesh = draw_layers(left, seen, look)
        draw_rule(right, seen, look)
        bar = figure.colorbar(
            mesh, ax=left, location="right", fraction=0.025, pad=0.012, ticks=[1, 10, 100, 1000, 10_000]
        )
        bar.ax.set_yticklabels(["1", "10", "100", "1,000", "10,000"], fontsize=6.5)
        bar.outline.set_visible(False)
        bar.ax.minorticks_off()
        for ax in (left, right):
            ax.tick_params(length=2, width=0.6)
            ax.spines[["top", "right"]].set_visible(False)
        path = ROOT / "docs" / f"sink-{name}.png"
        figure.savefig(path, dpi=200, transparent=True, metadata={"Software": None})
        plt.close(figure)
    return path


def main() -> None:
    """Measure once and draw for both backgrounds."""
    seen = measure()
    print(seen.sinks.table(seen.tokens))
    for name, look in (("light", LIGHT), ("dark", DARK)):
        print(draw(seen, name, look).relative_to(ROOT))


if __name__ == "__main__":
    main()
