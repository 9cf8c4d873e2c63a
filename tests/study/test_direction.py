"""The direction of the sink's value: which conditions are run, and what is said of losses whose answer is known."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnisink.cli.study import PASSAGES
from omnisink.errors import OmnisinkError
from omnisink.methods.controls import OutRoControl
from omnisink.questions.items import Item, read_items
from omnisink.report.sections import sections_of
from omnisink.results.generated import read_marked, split_marked
from omnisink.results.schema import STUDY_FORMAT
from omnisink.results.statistics import Difference, holm
from omnisink.study import direction
from omnisink.study.calibration import Calibration, calibrate
from omnisink.study.direction_comparisons import BETAS
from omnisink.study.direction_wording import answer, columns
from omnisink.study.item_measurements import ItemMeasurements
from omnisink.study.item_runner import item_runner
from omnisink.study.plan import Plan
from omnisink.study.results import StudyResults
from omnisink.study.run import run_study
from omnisink.study.settings import Settings
from omnisink.study.verdicts import BEGIN, END, verdicts, write_verdicts

SETTINGS = Settings(direction_gammas=(0.1, 0.5), seeds=1)
NO_CALIBRATION = Calibration([], {}, 0)
SOURCES = 16


def test_the_shipped_passages_are_64_texts_of_16_kinds() -> None:
    items = read_items(PASSAGES)
    assert set(Counter(item.cluster for item in items).values()) == {4}
    assert len({item.passage for item in items}) == 64
    assert all(item.passage and 300 < len(item.passage) < 1200 for item in items)
    # Any first part of them has kinds in nearly equal numbers.
    assert len({item.cluster for item in items[:16]}) == 16


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take three standard errors as interval: what is planted is clear, and drawing clusters is tried elsewhere."""

    def difference(arm: Any, base: Any, clusters: Any, **_: Any) -> Difference:
        gap = np.subtract(arm, base)
        mean, half = float(gap.mean()), 3 * float(gap.std()) / math.sqrt(len(gap))
        return Difference(mean, mean - half, mean + half, 1e-4 if abs(mean) > half else 0.5)

    # Statsmodels collects garbage at every correction, which takes longer than all else here.
    monkeypatch.setattr("gc.collect", lambda: 0)
    monkeypatch.setattr("omnisink.study.direction_comparisons.paired_difference", difference)
    monkeypatch.setattr("omnisink.study.conditions.paired_difference", difference)


def measured(tiny: Any, passage: str, index: int = 0) -> dict[str, Any]:
    """Run the conditions of one passage; return the record of each by its unit."""
    item = Item("p", passage=passage, cluster="p")
    calibration = calibrate(tiny, [item])
    with item_runner(tiny, item) as runner:
        found = ItemMeasurements(runner, None)
        made = {unit.name: dict(unit.run()) for unit in direction.units(found, SETTINGS, calibration, index)}
    return {"base": runner.base, **made}


def test_conditions_turn_by_one_angle_and_parts_act_where_they_say(tiny) -> None:
    made = measured(tiny, "Wa stone Wlies in the grass")
    assert made["sinks"] == {"positions": [0, 9], "layers": [0, 1]}
    for gamma in ("-0.5", "-0.1", "+0.1", "+0.5"):
        # Later layers are given other outputs, so that angles are the same at the first layer only.
        assert made[f"random{gamma}#0"]["turned"] == pytest.approx(made[f"sink{gamma}"]["turned"], rel=0.2)
        assert made[f"random{gamma}#0"]["loss"] != made[f"sink{gamma}"]["loss"]
    assert {"opposite+0.1", "opposite+0.5", "relax"} <= made.keys()
    parts = {name for name in made if name.startswith(("layers", "first", "others"))}
    assert parts == {
        f"{what}{gamma}" for what in ("layers-0", "layers-1", "first", "others") for gamma in ("-0.5", "+0.5")
    }
    method = OutRoControl(gamma=0.5, relax=False, detect_layers=(1,))
    item = Item("p", passage="Wa stone Wlies in the grass", cluster="p")
    with item_runner(tiny, item) as runner:
        assert made["layers-1+0.5"]["loss"] == runner.run(method, start=0).loss != made["base"].loss
    assert len({made[name]["loss"] for name in ("sink+0.5", "layers-0+0.5", "layers-1+0.5")}) == 3
    assert made["first+0.5"]["label"] == "toward the value of the sink at the first token only, gamma 0.5"
    assert made["others+0.5"]["label"] == "toward the value of sinks after the first token only, gamma 0.5"


def test_an_item_without_a_sink_is_left_as_it_is_and_random_directions_differ_by_item(tiny) -> None:
    made = measured(tiny, "a stone lies in the grass")
    assert made["sinks"] == {"positions": [], "layers": []}
    assert {made[name]["loss"] for name in made if name.startswith(("sink+", "sink-", "random"))} == {
        made["base"].loss
    }
    assert not any(name.startswith(("first", "others")) for name in made)
    first, second = (measured(tiny, "Wa stone lies", index)["random+0.5#0"]["loss"] for index in (0, 1))
    assert first != second


def test_layers_where_most_tokens_are_massive_are_left_out_but_for_one_condition(tiny, tmp_path, monkeypatch) -> None:
    item = Item("p", passage="Wa stone lies", cluster="p")
    assert calibrate(tiny, [item]).crowded == ()
    monkeypatch.setattr("omnisink.study.calibration.CROWD", 0)
    found = calibrate(tiny, [item])
    assert found.crowded == (0, 1, 2, 3)
    found.save(tmp_path / "calibration.npz")
    assert Calibration.load(tmp_path / "calibration.npz").crowded == found.crowded
    with item_runner(tiny, item) as runner:
        made = {}
        some = Calibration(found.channels, found.values, 1, (0, 2, 3))
        for unit in direction.units(ItemMeasurements(runner, None), SETTINGS, some, 0):
            made[unit.name] = dict(unit.run())
        method = OutRoControl(gamma=0.5, relax=False, detect_layers=(1,))
        whole = OutRoControl(gamma=0.5, relax=False)
        assert made["sink+0.5"]["loss"] == runner.run(method, start=0).loss
        assert made["every+0.5"]["loss"] == runner.run(whole, start=0).loss != made["sink+0.5"]["loss"]
    assert made["sinks"] == {"positions": [0], "layers": [1]}
    assert {name for name in made if name.startswith("layers")} == {"layers-1-0.5", "layers-1+0.5"}
    section = {**direction.summarise([], {}, SETTINGS, found), "directions": []}
    assert section["crowded"] == [0, 1, 2, 3]


def test_a_temperature_scales_the_logits(tiny) -> None:
    made = measured(tiny, "Wa stone lies")
    ids = torch.tensor([tiny.tokenizer.encode("Wa stone lies")])
    with torch.inference_mode():
        logits = tiny.model(input_ids=ids, use_cache=False).logits[0, :-1].double()
    for beta, loss in zip(BETAS, made["temperature"]["tempered"], strict=True):
        expected = torch.nn.functional.cross_entropy(beta * logits, ids[0, 1:])
        assert loss == pytest.approx(float(expected), abs=1e-5)


def planted(effects: dict[str, float], *, best: float = 1.0, away_best: float | None = None) -> dict[str, Any]:
    """Sum up records of 32 passages of 16 sources on which each kind of condition changes the loss as planted.

    Over the inverse temperature losses are parabolas. Their least is at `best`, and at `away_best` away from the sink.
    """
    rng = np.random.default_rng(0)
    base, records = {}, []

    def tempered(loss: float, least: float) -> list[float]:
        return [loss + 2 * (beta - least) ** 2 - 2 * (1 - least) ** 2 for beta in BETAS]

    for i in range(2 * SOURCES):
        name, loss = f"p{i}", float(rng.normal(3, 0.5))
        key = {"item": name, "question": "direction"}
        base[name] = {**key, "unit": "base", "loss": loss, "right": None, "said": "", "cluster": f"s{i % SOURCES}"}
        records.append({**key, "unit": "sinks", "positions": [0, 5] if i % 2 else [0], "layers": [1]})
        records.append({**key, "unit": "temperature", "tempered": tempered(loss, best)})
        for by in ("sink", "random", "opposite"):
            for gamma in (-0.5, -0.1, 0.1, 0.5):
                if by == "opposite" and gamma < 0:
                    continue
                effect = effects.get(f"{by}{gamma:+g}", effects.get(f"{by}{'+' if gamma > 0 else '-'}", 0.0))
                changed = loss + effect + float(rng.normal(0, 0.002))
                record = {
                    **key,
                    "unit": f"{by}{gamma:+g}",
                    "label": f"{by}, gamma {gamma:g}",
                    "gamma": gamma,
                    "by": by,
                }
                least = best if away_best is None else away_best
                away = tempered(changed, least) if by == "sink" and gamma < 0 else None
                records.append({**record, "loss": changed, "right": None, "said": "", "turned": 1.0, "tempered": away})
    return direction.summarise(records, base, SETTINGS, NO_CALIBRATION)


def test_what_hurts_helps_or_says_nothing_is_said_so(simple) -> None:
    hurts = planted({"sink+": 0.05, "sink-": -0.03, "opposite+": -0.03})
    said = answer(hurts)
    assert "hurts, and its direction carries information" in said
    assert said.endswith("against a random direction by the same angle, turning away is better at 2 of 2 strengths")
    nothing = planted(dict.fromkeys(("sink+", "sink-", "random+", "random-", "opposite+"), 0.05))
    assert answer(nothing).startswith(
        "turning toward the sink's value hurts, and its direction carries no information"
    )
    helps = planted({"sink+": -0.05, "sink-": 0.03})
    assert "value helps" in answer(helps)
    assert "away is worse at 2 of 2 strengths" in answer(helps)
    mixed = planted({"sink+0.1": -0.05, "sink+0.5": 0.05, "sink-0.1": -0.05, "sink-0.5": 0.05})
    assert "helps at some strengths and hurts at others" in answer(mixed)
    assert "better at 1 of 2 strengths and worse at 1 of 2 strengths" in answer(mixed)
    assert "changes nothing that holds" in answer(planted({}))
    lines = direction.interpret(hurts)
    assert "Of 32 items, 32 have a sink at the first token and 16 have one elsewhere." in lines
    assert columns(hurts)["toward, γ = 0.5"].startswith("**+0.05")
    assert columns(hurts)["away − random, γ = −0.5"].startswith("**−0.03")
    assert not columns(planted({}))["toward, γ = 0.5"].startswith("**")


def test_p_is_corrected_over_conditions_and_comparisons_together(simple) -> None:
    section = planted({"sink+": 0.05})
    rows = [*section["directions"], *section["comparisons"]]
    # The sink's four against random ones, its two toward against the opposite, a temperature, and two away with one.
    assert len(section["directions"]) == 10
    assert len(section["comparisons"]) == 4 + 2 + 1 + 2
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])


def test_what_a_temperature_gains_is_not_counted_for_turning_away(simple) -> None:
    """A temperature of 1/1.1 gains 0.02; away gains as much without one, and nothing beyond."""
    section = planted({"sink-": -0.02}, best=1.1, away_best=1.0)
    assert section["temperatures"] == pytest.approx([1 / 1.1] * 2, abs=1e-3)
    rows = {row["arm"]: row for row in section["comparisons"]}
    assert rows["temperature"]["loss_change"] == pytest.approx(-0.02, abs=1e-4)
    assert rows["sink-0.5 at a temperature"]["loss_change"] == pytest.approx(0, abs=0.002)
    assert any("no more than a temperature gains" in line for line in direction.interpret(section))
    more = planted({"sink-": -0.03}, best=1.1)
    rows = {row["arm"]: row for row in more["comparisons"]}
    assert rows["sink-0.5 at a temperature"]["loss_change"] == pytest.approx(-0.03, abs=0.002)
    assert any("lowers the loss at 2 of 2 strengths and raises it at 0." in x for x in direction.interpret(more))


def test_a_study_asks_it_and_the_page_draws_it(tiny, items_file, tmp_path) -> None:
    items = read_items(items_file)[4:]
    plan = Plan(questions=("direction",), direction_gammas=(0.1, 0.5), seeds=2, calibration=2)
    results = run_study(tiny, items, plan, tmp_path / "run", facts={"model": {"name": "tiny"}})
    section = results["direction"]
    assert section["sinks"] == {"items": 4, "first": 4, "others": 0}
    assert section["sources"] == 4
    assert {row["seeds"] for row in section["directions"] if row["by"] == "random"} == {2}
    assert all(math.isfinite(row["loss_change"]) for row in results.rows("comparisons"))
    (drawn,) = [one for one in sections_of(json.loads(json.dumps(results))) if one.name == "direction"]
    assert [figure.name for figure in drawn.figures] == ["direction", "direction-compared", "direction-parts"]
    assert len(drawn.figures[0].rows) == 10
    assert drawn.readings == results["readings"]["direction"]
    alone = run_study(tiny, items[:1], plan, tmp_path / "alone", facts={"model": {"name": "tiny"}})
    assert "This is one clip or text" in alone["readings"]["direction"][0]
    assert alone["direction"]["temperatures"] == []


def test_several_studies_make_one_table_in_a_page(simple, tmp_path) -> None:
    page = tmp_path / "index.md"
    page.write_text(f"# Studies\n\n{BEGIN}\nearlier table\n{END}\n\nBelow.\n", encoding="utf-8")
    folders = []
    for name, effects in {"first": {"sink+": 0.05, "sink-": -0.03}, "second": {}}.items():
        run, base = {"model": {"name": name}}, {"items": 32, "loss": 3.0, "loss_low": 2.9, "loss_high": 3.1}
        study = StudyResults(format=STUDY_FORMAT, run=run, baseline=base, direction=planted(effects))
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        study.save(folders[-1] / "results.json")
    write_verdicts(folders, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Studies\n")
    assert text.endswith(f"{END}\n\nBelow.\n")
    assert "earlier" not in text
    rows = dict(
        line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| ") and "---" not in line
    )
    assert rows["toward the sink's value"] == "hurts | changes nothing that holds"
    assert rows["away, against a random direction"].startswith("better at 2 of 2 strengths | neither")
    assert rows["texts, and sources"] == "32, 16 | 32, 16"
    assert "- **first**: turning toward the sink's value hurts" in text
    write_verdicts([], page)
    assert "No study" in page.read_text(encoding="utf-8")
    older = StudyResults(format=STUDY_FORMAT, run={"model": {"name": "old"}}, baseline={})
    older.save(tmp_path / "results.json")
    with pytest.raises(OmnisinkError, match="old: the study did not ask the question direction"):
        write_verdicts([tmp_path], page)


def test_the_table_in_the_documentation_is_that_of_its_studies() -> None:
    folder = Path(__file__).parents[2] / "docs" / "studies"
    studies = [StudyResults.load(path) for path in sorted(folder.glob("*/results.json"))]
    page = read_marked(folder / "index.md", BEGIN, END, "the verdicts")
    assert split_marked(page, BEGIN, END)[1].strip("\n") == verdicts(
        [one for one in studies if one.get("direction")]
    ).strip("\n")
