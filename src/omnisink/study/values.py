"""Question 3: what does the sink carry? Geometry, Zero-K, the shared bias, and ranking by the sink's query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from omnisink.decoder.context import AttentionCall, Context
from omnisink.maths.geometry import linear_cka, mean_cosine, top_channels
from omnisink.methods.ablation import ReplaceSinkValue, ZeroSinkKey
from omnisink.methods.base import Method
from omnisink.methods.criteria import Positions
from omnisink.methods.knockout import PruneTokens
from omnisink.methods.measure import Recorder
from omnisink.methods.measurements import PARTS, Recording
from omnisink.results.schema import (
    BaseRecord,
    ByLayer,
    ByLayerRecord,
    ConditionFacts,
    ConditionRecord,
    Geometry,
    GeometryRecord,
    StudyRecord,
    ZeroKOutcome,
)
from omnisink.results.statistics import mean_interval
from omnisink.results.wording import number, percent
from omnisink.study import wording
from omnisink.study.calibration import Calibration
from omnisink.study.conditions import Condition, random_draws, summarise_conditions, units_of
from omnisink.study.item_measurements import ItemMeasurements, plain
from omnisink.study.item_runner import ItemRunner
from omnisink.study.records import records_as
from omnisink.study.settings import Settings
from omnisink.study.unit import Unit

#: Units of the records that hold measurements.
GEOMETRY, DISTANCE = "geometry", "distance"
_ZERO_K, _PRUNE = "zero-k", "prune"


def counts(width: int) -> list[int]:
    """Return n = 1, 2, 4, ... up to all `width` channels of a key."""
    powers = [2**i for i in range(width.bit_length()) if 2**i < width]
    return [*powers, width]


def units(measurements: ItemMeasurements, settings: Settings, calibration: Calibration, index: int) -> Iterator[Unit]:
    """Yield the measurements, Zero-K, and of the first items the pruning of tokens."""
    yield Unit(GEOMETRY, partial(geometry, measurements))
    yield Unit(DISTANCE, partial(distance, measurements))
    for condition in zero_k_conditions(measurements):
        yield Unit(condition.unit, partial(_run_zero_k, measurements, condition))
    if index < settings.pruning_items:
        yield from units_of(pruning_conditions(measurements, settings), measurements.runner)


def geometry(measurements: ItemMeasurements) -> Geometry:
    """Return norms, cosines, dominant channels and the split of one item, layer by layer where it has a sink."""
    recording, marks = measurements.recording, measurements.sinks()
    kept = recording.token_mask[0]
    layers: dict[str, Any] = {}
    for layer in marks.layers:
        row = list(recording.layers).index(layer)
        sink = marks.masks[layer][0].numpy()
        other = kept & ~sink
        keys, values = measurements.by_layer("key_norm")[row], measurements.by_layer("value_norm")[row]
        parallel = measurements.by_layer("parallel")[row].mean(axis=-1)
        sink_key = torch.from_numpy(measurements.by_layer("sink_key")[row])
        layers[str(layer)] = {
            "sink_key_norm": plain(keys[:, sink].mean()),
            "other_key_norm": plain(keys[:, other].mean()),
            "sink_value_norm": plain(values[:, sink].mean()),
            "other_value_norm": plain(values[:, other].mean()),
            "query_cosine": plain(measurements.by_layer("query_cosine")[row].mean()),
            "other_cosine": plain(measurements.by_layer("other_cosine")[row].mean()),
            "share": plain(measurements.by_layer("sink_share")[row].mean()),
            "norm_ratio": plain(measurements.by_layer("sink_norm_ratio")[row].mean()),
            **{f"parallel_{part}": plain(parallel[i]) for i, part in enumerate(PARTS)},
            "channels": {str(n): _top_share(sink_key, n) for n in counts(sink_key.shape[-1])},
        }
    return {"layers": layers, "split_error": plain(measurements.by_layer("split_error").max())}


def _top_share(key: Tensor, n: int) -> float | None:
    """Share of the squared norm of (K, D) keys in each one's n largest channels, mean over heads."""
    square = key.square()
    return plain((square * top_channels(key, n)).sum(dim=-1).div(square.sum(dim=-1)).mean().numpy())


def zero_k_conditions(measurements: ItemMeasurements) -> Iterator[Condition]:
    """Yield Zero-K for n = 1, 2, 4, ... up to the whole key."""
    width = int(measurements.by_layer("sink_key").shape[-1])
    for n in counts(width):
        yield Condition(
            f"{_ZERO_K}-{n}",
            f"zero {n} of {width} channels",
            ZeroSinkKey(channels=n),
            measurements.first_layer(),
            {"n": n},
        )


def _run_zero_k(measurements: ItemMeasurements, condition: Condition) -> ZeroKOutcome:
    """Run one condition of Zero-K and record the attention that is left to the sink."""
    recorder = Recorder(received=False)
    runner = measurements.runner
    outcome = runner.run(condition.method, recorder, start=condition.start)
    left = before = None
    if condition.start is not None and outcome.recorded is not None:
        made = Recording.of(outcome.recorded, recorder.set_names, [])
        layers = measurements.sinks().layers
        marked = [i for i, layer in enumerate(made.layers) if layer in layers]
        left = plain(made["mass"][0, marked, :, 0].mean())
        # The same layers, heads and criterion, before any channel was set to zero: the curve's value at n = 0.
        rows = [i for i, layer in enumerate(measurements.recording.layers) if layer in layers]
        before = plain(measurements.by_layer("mass")[rows, :, 0].mean())
    return {**outcome.record(), "label": condition.label, **condition.about, "mass": left, "mass_before": before}


@dataclass(frozen=True, eq=False)
class _Compare(Method):
    """Compare the residual stream entering every layer with the one that entered it in the first run."""

    runner: ItemRunner
    others: Tensor  # (S,) bool: a massive activation would outweigh every other token

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        before, others = self.runner.residual(layer), self.others.to(hidden.device)
        found = {
            "cosine": mean_cosine(before[None], hidden, others[None]),
            "cka": linear_cka(before[others], hidden[0, others])[None],
        }
        for name, measured in found.items():
            context.record.measured.setdefault(name, {})[layer] = measured

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        return output


def distance(measurements: ItemMeasurements) -> ByLayer:
    """Return how near the residual streams of all other tokens stay to their own without the sink's value."""
    start = measurements.first_layer()
    if start is None:
        return {"layers": {}}
    outcome = measurements.runner.run(
        ReplaceSinkValue(), _Compare(measurements.runner, ~measurements.ever[0]), start=start
    )
    assert outcome.recorded is not None
    measured = outcome.recorded.measured
    return {
        "layers": {
            str(layer): {name: plain(measured[name][layer][0].cpu().numpy()) for name in ("cosine", "cka")}
            for layer in sorted(measured["cosine"])
            if layer > start
        }
    }


def pruning_conditions(measurements: ItemMeasurements, settings: Settings) -> Iterator[Condition]:
    """Yield pruning at every ranking layer and keep rate, by the sink's query and at random; nothing without media."""
    runner, sets = measurements.runner, measurements.runner.sets()
    media = [members for name, members in sets.items() if name != "text"]
    sinks = measurements.positions
    if not media or not sinks.positions:
        return
    candidates = torch.stack(media).any(dim=0)
    for layer in settings.ranking_layers(len(runner.anatomy.layers)):
        if layer not in runner.anatomy.attention:
            continue
        for keep in settings.keeps:
            about: ConditionFacts = {"layer": layer, "keep": keep}
            method = _prune(sinks, candidates, layer, keep)
            name = f"{_PRUNE}-{layer}-{keep:g}"
            label = f"keep {number(keep, '.0%')} of the media tokens after layer {layer}"
            yield Condition(
                f"{name}-sink", f"{label}, by the sink's query", method, layer, {**about, "by": "sink query"}
            )
            for unit, seed in random_draws(f"{name}-random", 1, settings.seed):
                method = _prune(sinks, candidates, layer, keep, by="random", seed=seed)
                yield Condition(unit, f"{label}, at random", method, layer, {**about, "by": "random"})


def _prune(sinks: Positions, candidates: Tensor, layer: int, keep: float, **how: Any) -> PruneTokens:
    return PruneTokens(criterion=sinks, candidates=candidates, layer=layer, keep=keep, **how)


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
        ``geometry``, ``key_channels``, ``zero_k``, ``decomposition``, ``distance``, ``pruning``. Means run over the
        items that have a sink at a layer.
    """
    measured = records_as(GeometryRecord, (r for r in records if r["unit"] == GEOMETRY))
    distances = records_as(ByLayerRecord, (r for r in records if r["unit"] == DISTANCE))
    by_layer = _by_layer(measured)
    names = ("sink_key_norm", "other_key_norm", "sink_value_norm", "other_value_norm", "query_cosine", "other_cosine")
    split = ("norm_ratio", *(f"parallel_{part}" for part in PARTS))
    section: dict[str, Any] = {"geometry": [], "key_channels": [], "decomposition": []}
    for layer, found in by_layer.items():
        section["geometry"].append({"layer": layer, **{n: _mean([f[n] for _, f in found]) for n in names}})
        section["key_channels"] += [
            {"layer": layer, "n": int(n), "share": _mean([f["channels"][n] for _, f in found])}
            for n in found[0][1]["channels"]
        ]
        share = mean_interval(
            [f["share"] for _, f in found], [base[item]["cluster"] for item, _ in found], seed=settings.seed
        )
        section["decomposition"].append(
            {
                "layer": layer,
                "share": share.value,
                "low": share.low,
                "high": share.high,
                **{n: _mean([f[n] for _, f in found]) for n in split},
            }
        )
    section["distance"] = [
        {"layer": layer, **{n: _mean([f[n] for _, f in found]) for n in ("cosine", "cka")}}
        for layer, found in _by_layer(distances).items()
    ]
    zeroed = records_as(ConditionRecord, (r for r in records if r["unit"].startswith(_ZERO_K)))
    section["zero_k"] = summarise_conditions(zeroed, base, seed=settings.seed, about=("n",))
    for row in section["zero_k"]:
        alike = [r for r in zeroed if r["n"] == row["n"]]
        row |= _attention_left("mass", alike, base, settings.seed)
        row |= _attention_left("mass_before", alike, base, settings.seed)
    pruned = records_as(ConditionRecord, (r for r in records if r["unit"].startswith(_PRUNE)))
    section["pruning"] = summarise_conditions(pruned, base, seed=settings.seed, about=("layer", "keep", "by"))
    section["split_error"] = max((r["split_error"] for r in measured if r["split_error"] is not None), default=None)
    return section


def _attention_left(
    name: Literal["mass", "mass_before"],
    records: Sequence[ConditionRecord],
    base: Mapping[str, BaseRecord],
    seed: int,
) -> dict[str, float | None]:
    """Return the mean attention to the sink with its interval; of records of earlier versions, it may be missing."""
    found = [(mass, base[r["item"]]["cluster"]) for r in records if (mass := r.get(name)) is not None]
    if not found:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    mean = mean_interval([mass for mass, _ in found], [c for _, c in found], seed=seed)
    return {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}


def interpret(section: Mapping[str, Any]) -> list[str]:
    """Say in plain sentences what the section shows."""
    rows = section["geometry"]
    if not rows:
        return ["No item has a sink by the massive-activation rule, so there is nothing to describe."]

    def ratio(name: str) -> str:
        return number(float(np.mean([r[f"sink_{name}_norm"] / r[f"other_{name}_norm"] for r in rows])), ".2f")

    def mean(of: Sequence[Mapping[str, Any]], name: str, form: str = ".2f") -> str:
        return number(float(np.mean([r[name] for r in of])), form)

    parts = section["decomposition"]
    least, most = (number(end(r["share"] for r in parts), ".0%") for end in (min, max))
    said = [
        f"Over the {len(rows)} layers with a sink, its key is {ratio('key')} times as long as other keys and its "
        f"value {ratio('value')} times as long as other values; queries have a mean cosine of "
        f"{mean(rows, 'query_cosine')} with its key and of {mean(rows, 'other_cosine')} with the mean of all other "
        "keys.",
        f"The sink's part makes up {mean(parts, 'share', '.0%')} of the head outputs (by layer {least} to {most}). "
        f"Outputs of different tokens have a mean cosine of {mean(parts, 'parallel_whole')}, and of "
        f"{mean(parts, 'parallel_rest')} without that part.",
    ]
    last = max((row["n"] for row in section["zero_k"]), default=0)
    said.extend(
        _zero_k_in_words(row) for row in section["zero_k"] if row["n"] in (1, 8, last) and row["mass"] is not None
    )
    said += wording.directions([row for row in section["zero_k"] if row["loss_low"] is None])
    if section["distance"]:
        end = section["distance"][-1]
        said.append(
            f"Without the sink's value, the residual stream of other tokens entering layer {end['layer']} has a mean "
            f"cosine of {number(end['cosine'], '.3f')} with its own before, and a CKA of {number(end['cka'], '.3f')}."
        )
    return said


def _zero_k_in_words(row: Mapping[str, Any]) -> str:
    """Say how much attention is left, before and after, and what changes where there is an interval."""
    before = row.get("mass_before")
    left = f"leaves {percent(row['mass'])} of the attention on the sink"
    if before is not None:
        left += f", where it was {percent(before)}"
    changed = "" if row["loss_low"] is None else f": {wording.changes(row)}"
    return f"Zero-K with n = {row['n']} {left}{changed}."


def cost(settings: Settings, index: int) -> float:
    """Return roughly how many runs an item takes."""
    return 10.0 + (16.0 * len(settings.keeps) if index < settings.pruning_items else 0.0)


def _by_layer(records: Sequence[ByLayerRecord] | Sequence[GeometryRecord]) -> dict[int, list[tuple[str, Any]]]:
    found: dict[int, list[tuple[str, Any]]] = {}
    for record in records:
        for layer, values in record["layers"].items():
            found.setdefault(int(layer), []).append((record["item"], values))
    return dict(sorted(found.items()))


def _mean(values: Sequence[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None
