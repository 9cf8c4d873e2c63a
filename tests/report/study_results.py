"""Results of a study that look like real ones, made from a seed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

CRITERIA = ("massive_activation", "sink_dimension")
QUESTIONS = ("identification", "heads", "values", "causality")


def results(seed: int = 0, layers: int = 30, tokens: int = 250, clip: bool = True, frames: int = 8) -> dict[str, Any]:
    """Make the results of a whole study.

    `clip` makes the example a video with sound; without it the example is text, and accuracies are missing.
    """
    rng = np.random.default_rng(seed)
    modalities = ["all", "text", "video", "audio"] if clip else ["all", "text"]
    return {
        "format": "omnisink.study.v1",
        "run": run(layers),
        "baseline": {
            "items": 60,
            "accuracy": 0.617 if clip else None,
            "accuracy_low": 0.49 if clip else None,
            "accuracy_high": 0.73 if clip else None,
            "loss": 1.043,
            "loss_low": 0.911,
            "loss_high": 1.187,
        },
        "readings": {
            name: [f"What the study reads out of {name}, in one plain sentence with a number: 12 of {layers} layers."]
            for name in QUESTIONS
        },
        "example": example(rng, layers, tokens, clip, frames),
        "identification": identification(rng, layers, modalities, clip),
        "heads": heads(rng, layers),
        "values": values(rng, layers, clip),
        "causality": {"arms": arms(rng, clip)},
    }


def quick() -> dict[str, Any]:
    """Make results of one item: without intervals, with tiny changes, and with many readings."""

    def thin(value: Any) -> Any:
        if isinstance(value, list):
            return [thin(item) for item in value]
        if not isinstance(value, dict):
            return value
        row = {key: thin(item) for key, item in value.items()}
        row |= {key: None for key in row if key in ("low", "high") or key.endswith(("_low", "_high"))}
        row |= {key: 1.0 for key in ("p", "p_holm") if key in row}
        row |= {key: row[key] * 1e-4 for key in ("loss", "loss_change", "effect") if key in row}
        return row | {key: 0.0 for key in ("accuracy_change",) if key in row}

    given = results(layers=8, tokens=60)
    for section in ("baseline", *QUESTIONS):
        given[section] = thin(given[section])
    given["baseline"] |= {"items": 1, "accuracy": 1.0, "loss": 0.00027782662}
    given["run"]["data"] |= {"items": 1, "used": 1}
    given["run"] |= {"quick": True, "seconds": 47.3}
    given["example"] |= {"answer": "C", "said": "B"}
    given["readings"]["causality"] = [f"What arm {i} of 7 does, in one sentence." for i in range(7)]
    return given


def run(layers: int) -> dict[str, Any]:
    return {
        "model": {
            "name": "smolomni", "weights": "smolomni.safetensors", "source": "embedded", "revision": "3f2a91c",
            "class": "SmolOmniForConditionalGeneration", "device": "cpu", "dtype": "float32", "attention": "sdpa",
            "layers": layers, "heads": 9, "kv_heads": 3, "width": 576,
        },
        "versions": {"omnisink": "0.9.0", "torch": "2.14.0", "transformers": "5.23.0", "python": "3.11.9"},
        "data": {"file": "synthav.jsonl", "sha256": "9c1185a5c5e9fc54612808977ee8f548", "items": 120, "used": 60},
        "settings": {"gamma": 3.0, "tau": 0.1, "min_activation": 100.0, "median_ratio": 1000.0, "relax": False},
        "seed": 0,
        "questions": list(QUESTIONS),
        "command": "omnisink study --model smolomni --data synthav.jsonl --out study",
        "started": "2026-03-02T10:15:00+00:00",
        "seconds": 1834.2,
        "quick": False,
    }  # fmt: skip


def picture(i: int, width: int = 64, height: int = 48) -> str:
    """Draw a frame with a ball that moves, as a data URI."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([40 + 2 * x, 60 + 2 * y, np.full_like(x, 110)], axis=-1).astype(np.uint8)
    pixels[(x - 8 - 6 * i % width) ** 2 + (y - height // 2) ** 2 < 60] = (250, 210, 60)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def example(rng: np.random.Generator, layers: int, count: int, clip: bool, frames: int) -> dict[str, Any]:
    tokens = _tokens(count, clip, frames)
    magnitude = np.exp(rng.normal(0, 0.25, (layers, count))) * np.linspace(1, 90, layers)[:, None]
    received = rng.dirichlet(np.ones(count), layers)
    begin = layers // 3
    sinks = [0, count // 3] if count > 3 else [0]
    marked: dict[str, list[list[int]]] = {name: [] for name in CRITERIA}
    for layer in range(begin, max(begin + 1, layers - 2)):
        for p in sinks:
            magnitude[layer, p] = 12_000 / (1 + 3 * p)
            received[layer, p] = 0.45 / (1 + p / 40)
            marked["sink_dimension"].append([layer, p])
        marked["massive_activation"].append([layer, 0])
    sink_query: list[Any] = [None] * layers
    for layer in range(begin, layers):
        sink_query[layer] = rng.dirichlet(np.full(count, 0.3)).tolist()
    last = rng.dirichlet(np.full(count, 0.2), layers)
    return {
        "item": "synthav-0042", "question": "What colour is the ball when the bell rings?",
        "choices": ["red", "green", "yellow", "blue"], "answer": "yellow", "said": "yellow", "layers": layers,
        "tokens": tokens,
        "frames": [{"time": 1.0 * i, "image": picture(i)} for i in range(frames)] if clip else [],
        "waveform": _waveform(frames) if clip else None,
        "magnitude": magnitude.tolist(), "received": received.tolist(), "marked": marked,
        "sink_query": sink_query, "last_query": last.tolist(),
        "components": components(sorted({begin, layers - 1}), count, sinks),
    }  # fmt: skip


def components(layers: list[int], count: int, sinks: list[int]) -> dict[str, Any]:
    rng = np.random.default_rng(7)

    def panel(layer: int) -> dict[str, Any]:
        x, y = rng.normal(0, 3, (2, count))
        x[sinks], y[sinks] = 9.0, 0.5
        return {"layer": layer, "explained": [0.43, 0.16], "origin": [8.5, 0.0], "x": x.tolist(), "y": y.tolist()}

    return {
        "sinks": sinks,
        "values": [panel(layer) for layer in layers],
        "residual_streams": [panel(layer) for layer in layers],
    }


def _tokens(count: int, clip: bool, frames: int) -> list[dict[str, Any]]:
    words = ["<start>", "user", "\n", "What", " colour", " is", " the", " ball", " when", " it", " rings", "?"]
    tokens = [
        {"text": words[i % len(words)], "modality": "text", "begins": None, "ends": None, "frame": None}
        for i in range(count)
    ]
    if clip:
        video, audio = count // 2, count // 4
        for i in range(video):
            frame = i * frames // video
            tokens[5 + i] |= {
                "text": "<video>",
                "modality": "video",
                "begins": 1.0 * frame,
                "ends": frame + 1.0,
                "frame": frame,
            }
        for i in range(audio):
            begins = i * frames / audio
            tokens[5 + video + i] |= {
                "text": "<audio>",
                "modality": "audio",
                "begins": begins,
                "ends": begins + frames / audio,
            }
    return tokens


def _waveform(seconds: int) -> dict[str, list[float]]:
    at = np.linspace(0, seconds, 400)
    loud = 0.1 + 0.7 * np.exp(-((at - seconds * 0.6) ** 2)) * np.abs(np.sin(at * 9))
    return {"seconds": at.tolist(), "low": (-loud).tolist(), "high": loud.tolist()}


def identification(rng: np.random.Generator, layers: int, modalities: list[str], clip: bool) -> dict[str, Any]:
    by_layer, overlap, stability = [], [], []
    for layer in range(layers):
        inside = 1.0 if layers // 3 <= layer < layers - 2 else 0.0
        for c, criterion in enumerate(CRITERIA):
            for modality in modalities:
                share = inside * (0.004 + 0.006 * c) * rng.uniform(0.6, 1.4)
                mass = inside * (0.5 + 0.1 * c) + 0.01 if modality == "all" else None
                row = {"criterion": criterion, "layer": layer, "modality": modality, "tokens": 240.5, "mass": mass}
                by_layer.append(
                    row | {"marked": 240.5 * share, "share": share, "low": share * 0.7, "high": share * 1.3}
                )
            first = inside * (1.0 - 0.2 * c)
            row = {"criterion": criterion, "layer": layer, "prompts": inside, "first": first, "jaccard": 0.8 * first}
            stability.append(row)
        both = {"layer": layer, "both": inside, "only_massive": 0.1 * inside}
        overlap.append(both | {"only_dimension": 1.4 * inside, "jaccard": 0.4 * inside})
    peaks = 2 + 22 * rng.uniform(0, 1, 14) ** 3
    channels = [
        {"channel": int(c), "prompts": float(rng.uniform() ** 2), "peak": float(peak), "chosen": bool(peak > 9)}
        for c, peak in zip(rng.permutation(576), peaks, strict=False)
    ]
    hidden = {"the sinks": 0.9, "as many others": 0.01, "all of the video": 0.3}
    masking = [arm(rng, f"mask-{what}", f"hide {what}", clip, effect) for what, effect in hidden.items()]
    shares = [
        {"layer": layer, "modality": m, "sink": sink, "items": 60, "mass": mass, "low": mass * 0.9, "high": mass * 1.1}
        for layer in range(layers)
        for m in modalities[1:]
        for sink, mass in ((True, 0.5 if m == "text" else 0.0), (False, 0.5 / len(modalities[1:])))
    ]
    parts = {"by_layer": by_layer, "overlap": overlap, "stability": stability, "attention": shares}
    return parts | {"channels": channels, "masking": masking}


def heads(rng: np.random.Generator, layers: int) -> dict[str, Any]:
    rows = []
    for layer in range(layers):
        for head in range(9):
            attention = float(rng.beta(1.2, 2) if layer > layers // 3 else rng.beta(1, 30))
            effect = float(rng.normal(0.02 - 0.02 * attention, 0.015))
            row = {"layer": layer, "head": head, "sink_attention": attention}
            row |= {"effect": effect, "low": effect - 0.01, "high": effect + 0.01}
            row |= {"accuracy_change": -effect, "accuracy_low": -effect - 0.02, "accuracy_high": -effect + 0.02}
            rows.append(row)
    correlation = [
        {"over": "all layers", "heads": len(rows), "items": 60, "rho": -0.31, "low": -0.42, "high": -0.19},
        {"over": "layers with a sink", "heads": len(rows) // 2, "items": 60, "rho": -0.12, "low": -0.29, "high": 0.06},
    ]
    every = [{key: row[key] for key in ("layer", "head", "sink_attention")} | {"marked": 1.0} for row in rows]
    return {"heads": rows, "correlation": correlation, "sink_attention": every}


def values(rng: np.random.Generator, layers: int, clip: bool) -> dict[str, Any]:
    depth = list(enumerate(np.linspace(0, 1, layers).tolist()))
    keys = [{"layer": i, "sink_key_norm": 14 - 3 * d, "other_key_norm": 17 + 2 * d} for i, d in depth]
    norms = [{"sink_value_norm": 0.3 + 0.2 * d, "other_value_norm": 2 + 4 * d} for _, d in depth]
    cosines = [{"query_cosine": 0.1 + 0.5 * d, "other_cosine": -0.05 * d} for _, d in depth]
    shares = [{"layer": i, "share": 0.1 + 0.4 * d, "low": 0.08 + 0.38 * d, "high": 0.12 + 0.43 * d} for i, d in depth]
    parallel = {"parallel_sink": 0.95, "parallel_rest": 0.2}
    return {
        "geometry": [a | b | c for a, b, c in zip(keys, norms, cosines, strict=True)],
        "key_channels": [
            {"layer": i, "n": n, "share": min(1.0, (0.2 + 0.3 * d) * n**0.3)}
            for i, d in depth
            for n in (1, 2, 4, 8, 16)
        ],
        "zero_k": [
            arm(rng, f"zero-{n}", f"{n} largest channels set to zero", clip, 0.02 * n)
            | {"n": n, "mass": 0.5 / n, "mass_low": 0.4 / n, "mass_high": 0.6 / n, "mass_before": 0.8}
            | {"mass_before_low": 0.75, "mass_before_high": 0.85}
            for n in (1, 2, 4, 8)
        ],
        "decomposition": [
            share | {"norm_ratio": 0.2 + d, "parallel_whole": 0.3 + 0.5 * d} | parallel
            for share, (_, d) in zip(shares, depth, strict=True)
        ],
        "distance": [{"layer": i, "cosine": 1 - 0.3 * d, "cka": 1 - 0.12 * d} for i, d in depth],
        "pruning": [
            arm(rng, f"prune-{layer}-{keep}-{by}", f"keep {keep:.0%} by {by}", clip, (1 - keep) * cost / (1 + layer))
            | {"layer": layer, "keep": keep, "by": by}
            for layer in sorted({2, layers // 2})
            for keep in (0.25, 0.5, 0.75)
            for by, cost in (("sink query", 0.05), ("random", 0.2))
        ],
    }


def arms(rng: np.random.Generator, clip: bool) -> list[dict[str, Any]]:
    what = {
        "toward": ("turned toward the sink's value", -0.04),
        "away": ("turned away from the sink's value", 0.21),
        "random": ("turned by as much, in a random direction", 0.03),
        "zero-value": ("the sink's value set to zero", 0.62),
    }
    return [arm(rng, name, label, clip, effect) for name, (label, effect) in what.items()]


def arm(rng: np.random.Generator, name: str, label: str, clip: bool, effect: float) -> dict[str, Any]:
    half = 0.02 + 0.1 * abs(effect)
    accuracy = -0.2 * effect
    return {
        "arm": name, "label": label, "items": 60, "seeds": 3,
        "accuracy": 0.617 + accuracy if clip else None, "accuracy_change": accuracy if clip else None,
        "accuracy_low": accuracy - 0.04 if clip else None, "accuracy_high": accuracy + 0.04 if clip else None,
        "loss": 1.043 + effect, "loss_change": effect, "loss_low": effect - half, "loss_high": effect + half,
        "p": 0.001 if effect > half else 0.4, "p_holm": 0.004 if effect > half else 0.8,
        "changed": float(rng.integers(0, 20)), "turned": 21.5 if "turned" in label else None,
    }  # fmt: skip


def changed(value: Any, text: Callable[[str], str], token_mask: Callable[[float], Any]) -> Any:
    """Return results with every string, keys of marked tokens and settings among them, and every float replaced."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return token_mask(value)
    if isinstance(value, dict):
        named = {key: changed(item, text, token_mask) for key, item in value.items()}
        for field in ("marked", "settings"):
            if isinstance(named.get(field), dict):
                named[field] = {text(key): item for key, item in named[field].items()}
        return named
    if isinstance(value, list):
        return [changed(item, text, token_mask) for item in value]
    return value
