"""Question 2: is a head that attends to the sink redundant? Zero every head, and compare with its sink attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from omnisink.methods.ablation import ZeroHeads
from omnisink.results.schema import (
    BaseRecord,
    SinkAttention,
    SinkAttentionRecord,
    StudyRecord,
    ZeroedHeads,
    ZeroedHeadsRecord,
)
from omnisink.results.statistics import SHARES_DIFFER, mean_interval, rank_correlation
from omnisink.results.wording import interval, number
from omnisink.study.calibration import Calibration
from omnisink.study.item_measurements import EVER, ItemMeasurements, plain
from omnisink.study.item_runner import ItemRunner
from omnisink.study.records import records_as
from omnisink.study.settings import Settings
from omnisink.study.unit import Unit
from omnisink.study.wording import nats

#: Unit of the record with an item's sink attention.
ATTENTION = "attention"
#: With fewer clips or texts, a bootstrap interval is too narrow.
MANY = 10


def units(measurements: ItemMeasurements, settings: Settings, calibration: Calibration, index: int) -> Iterator[Unit]:
    """Yield the item's sink attention, and of the first items every layer whose heads are zeroed."""
    yield Unit(ATTENTION, partial(attention, measurements))
    if index < settings.heads_items:
        for layer in sorted(measurements.runner.anatomy.attention)[:: settings.heads_every]:
            yield Unit(f"layer-{layer}", partial(zero_layer, measurements.runner, layer))


def attention(measurements: ItemMeasurements) -> SinkAttention:
    """Return every head's mean attention to the item's sinks, by layer."""
    mass = measurements.recording.mass_on(EVER)[0]
    return {
        "attention": {str(layer): plain(mass[row]) for row, layer in enumerate(measurements.recording.layers)},
        "marked": measurements.sinks().layers,
    }


def zero_layer(runner: ItemRunner, layer: int) -> ZeroedHeads:
    """Zero the heads of one layer, one after the other.

    Returns
    -------
    dict
        ``loss`` and ``right``, a list over heads each.
    """
    site = runner.anatomy.attention[layer].module
    config: Any = runner.anatomy.text_model.config
    heads = int(getattr(site, "num_heads", None) or config.num_attention_heads)
    outcomes = [runner.run(ZeroHeads(((layer, head),)), start=layer) for head in range(heads)]
    return {"layer": layer, "loss": [o.loss for o in outcomes], "right": [o.right for o in outcomes]}


def summarise(
    records: Sequence[StudyRecord], base: Mapping[str, BaseRecord], settings: Settings, calibration: Calibration
) -> dict[str, Any]:
    """Turn the records of all items into the section of the results.

    Parameters
    ----------
    records : sequence of dict
        Those of this question.
    base : mapping
        Records of the baseline by item.
    settings : Settings
        Their seed is used.
    calibration : Calibration
        Not used.

    Returns
    -------
    dict
        ``heads`` and ``correlation`` of the heads that were zeroed, ``sink_attention`` of all heads. Sink attention is
        averaged over all items, effects over those whose heads were zeroed.
    """
    seen = records_as(SinkAttentionRecord, (r for r in records if r["unit"] == ATTENTION))
    zeroed: dict[int, list[ZeroedHeadsRecord]] = {}
    for record in records_as(ZeroedHeadsRecord, (r for r in records if r["unit"] != ATTENTION)):
        zeroed.setdefault(record["layer"], []).append(record)
    rows, attended, effects, in_sink_layer = [], [], [], []
    order = sorted({str(r["item"]) for here in zeroed.values() for r in here})
    with_sink = {layer for r in seen for layer in r["marked"]}
    for layer, here in sorted(zeroed.items()):
        here = sorted(here, key=lambda r: str(r["item"]))
        clusters = [base[r["item"]]["cluster"] for r in here]
        for head in range(len(here[0]["loss"])):
            change = [r["loss"][head] - base[r["item"]]["loss"] for r in here]
            effect = mean_interval(change, clusters, seed=settings.seed, resamples=1999)
            mean = float(np.mean([r["attention"][str(layer)][head] for r in seen]))
            row = {
                "layer": layer,
                "head": head,
                "sink_attention": mean,
                "effect": effect.value,
                "low": effect.low,
                "high": effect.high,
                **dict.fromkeys(("accuracy_change", "accuracy_low", "accuracy_high")),
            }
            asked = [r for r in here if base[r["item"]]["right"] is not None]
            if asked:
                score = mean_interval(
                    [float(cast(bool, r["right"][head])) - float(cast(bool, base[r["item"]]["right"])) for r in asked],
                    [base[r["item"]]["cluster"] for r in asked],
                    bounds=SHARES_DIFFER,
                    seed=settings.seed,
                    resamples=1999,
                )
                row |= {"accuracy_change": score.value, "accuracy_low": score.low, "accuracy_high": score.high}
            rows.append(row)
            attended.append(mean)
            effects.append(change)
            in_sink_layer.append(layer in with_sink)
    chosen = {"all layers": np.ones(len(rows), dtype=bool), "layers with a sink": np.array(in_sink_layer, dtype=bool)}
    correlation = []
    for over, which in chosen.items():
        by_item = np.array(effects, dtype=float)[which].T if which.any() else np.zeros((0, 0))
        clusters = [base[item]["cluster"] for item in order]
        found = (
            rank_correlation(np.array(attended)[which], by_item, clusters, seed=settings.seed)
            if by_item.size
            else None
        )
        if found is not None:
            correlation.append(
                {
                    "over": over,
                    "heads": int(which.sum()),
                    "items": len(by_item),
                    "clusters": len(set(clusters)),
                    "rho": found.value,
                    "low": found.low,
                    "high": found.high,
                }
            )
    return {"heads": rows, "correlation": correlation, "sink_attention": _every_head(seen)}


def _every_head(seen: Sequence[SinkAttentionRecord]) -> list[dict[str, Any]]:
    """Return the mean sink attention of every head of every layer, and in what share of the items it has a sink."""
    rows = []
    for layer in sorted({int(layer) for r in seen for layer in r["attention"]}):
        here = [r["attention"][str(layer)] for r in seen if str(layer) in r["attention"]]
        marked = float(np.mean([layer in r["marked"] for r in seen]))
        for head in range(max(map(len, here))):
            found = [mass[head] for mass in here if head < len(mass) and mass[head] is not None]
            if found:
                attention = float(np.mean(np.array(found, dtype=float)))
                rows.append({"layer": layer, "head": head, "sink_attention": attention, "marked": marked})
    return rows


def interpret(section: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what the section shows."""
    rows = section["heads"]
    most = max(rows, key=lambda r: r["sink_attention"])
    attends = (
        f"Head {most['head']} of layer {most['layer']} attends to the sink most, with "
        f"{number(most['sink_attention'], '.0%')} of its attention"
    )
    if all(r["low"] is None for r in rows):
        return [
            f"{attends}.",
            f"{number(len(rows))} heads were zeroed one at a time, on one clip or text: it shows what is measured, and"
            " not which heads matter.",
        ]
    worst = max(rows, key=lambda r: r["effect"])
    mattering = [r for r in rows if r["low"] is not None and (r["low"] > 0 or r["high"] < 0)]
    clusters = min((r["clusters"] for r in section["correlation"]), default=MANY)
    chance = "one in twenty would by chance"
    if clusters < MANY:
        where = f"over {number(clusters)} clips or texts"
        chance = f"{where} intervals are too narrow, and more than one in twenty do by chance"
    said = [
        f"{number(len(rows))} heads were zeroed one at a time. The largest effect is head {worst['head']} of layer "
        f"{worst['layer']}: {nats(worst['effect'])}. {number(len(mattering))} have an interval that leaves out zero; "
        f"{chance}.",
        f"{attends}; zeroing it changes the loss by {nats(most['effect'])}.",
    ]
    for row in section["correlation"]:
        rho = interval(row["rho"], row["low"], row["high"], "+.2f")
        verdict = f"heads that attend to the sink more matter {'more' if row['rho'] > 0 else 'less'}"
        if row["low"] is None or row["low"] <= 0 <= row["high"]:
            verdict = "no clear relation"
        said.append(f"Over {row['over']}, the rank correlation of sink attention and effect is {rho}: {verdict}.")
    return said


def cost(settings: Settings, index: int) -> float:
    """Return roughly how many runs an item takes."""
    return 150.0 / settings.heads_every if index < settings.heads_items else 0.0
