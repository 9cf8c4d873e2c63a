"""The demo: what it says of strengths, sinks and cost, and the clip that it writes."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from omnisink import OutRo
from omnisink.cli.demo import CLIP, QUESTIONS, cost_line
from omnisink.cli.picture import draw_sinks
from omnisink.media import read_clip
from omnisink.methods.sinkmap import SinkMap
from omnisink.models.adapters.spans import Span
from tests.cli.command import refused, run, run_in_process


def test_the_shipped_clip_is_written_out(tmp_path):
    file = tmp_path / "clip.mp4"
    said = run("demo", "--clip", str(file))
    assert said.stdout.strip() == str(file)
    assert file.read_bytes() == CLIP.read_bytes()
    assert f'omnisink ask {file} "Which sound is heard?" --choices clock bell drum buzz --compare' in said.stderr
    assert read_clip(file, audio_rate=16_000).record.duration == pytest.approx(4.0, abs=0.1)


def test_a_clip_is_not_written_where_nothing_can_be(tmp_path):
    assert f"cannot write {tmp_path}" in refused("demo", "--clip", str(tmp_path))


def planted(layers: int, tokens: int) -> SinkMap:
    """A map in which token 0 is large from layer 2 on, and one token is over 100."""
    seen = {layer: torch.full((1, tokens), 5.0) for layer in range(layers)}
    for layer in range(2, layers):
        seen[layer][0, 0] = 25_000.0
    seen[1][0, tokens - 1] = 150.0
    masks = {layer: value > 1_000 for layer, value in seen.items()}
    return SinkMap(masks, torch.ones(1, tokens, dtype=torch.bool), magnitudes=seen)


def test_a_sink_is_drawn_where_it_is():
    lines = draw_sinks(
        planted(4, 6), [Span("text", 0, 2), Span("video", 2, 4, 0.0, 1.0), Span("audio", 4, 6, 0.0, 1.0)]
    )
    assert lines.splitlines()[:7] == [
        "      3 #.....",
        "      2 #.....",
        "      1 .....o",
        "      0 ......",
        "        ttvvaa",
        "        ^",
        "^ sinks: token 0, layers 2–3",
    ]


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ((), "no token is a sink"),
        ((3, 4), "^ sinks: tokens 3–4, layers 2–3"),
        ((0, 2, 9), "^ sinks: token 0, layers 2–3; token 2, layers 2–3; token 9, layers 2–3"),
        ((0, 2, 4, 6, 8), "^ sinks: 5 tokens, at layers 2–3"),
    ],
)
def test_the_sinks_are_pointed_at_and_named(tokens, said):
    seen = {layer: torch.full((1, 12), 5.0) for layer in range(4)}
    for layer in (2, 3):
        seen[layer][0, list(tokens)] = 25_000.0
    masks = {layer: value > 1_000 for layer, value in seen.items()}
    lines = draw_sinks(SinkMap(masks, torch.ones(1, 12, dtype=torch.bool), magnitudes=seen), []).splitlines()
    assert [i - 8 for i, sign in enumerate(lines[5]) if sign == "^"] == list(tokens)
    assert lines[6] == said


def test_a_long_prompt_and_a_deep_model_are_drawn_narrow():
    lines = draw_sinks(planted(40, 1_000), [], width=60, rows=10).splitlines()
    assert all(len(line) <= 60 for line in lines[:11])
    assert len(lines) == 15
    assert lines[9].startswith("    0-3 #.")
    assert lines[9].endswith("o")
    assert "20 tokens a character" in lines[13]


def test_a_map_without_activations_is_not_drawn():
    assert draw_sinks(SinkMap({}, torch.ones(1, 3, dtype=torch.bool)), []) == "no activations were recorded"


def part(low: float, high: float) -> dict[str, float]:
    return {"ratio": (low + high) / 2, "ratio_p20": low, "ratio_p80": high, "without_ms": 100.0, "with_ms": 120.0}


def test_the_cost_is_a_ratio_only_where_the_machine_was_idle():
    calm = cost_line(part(1.0, 1.1), "10 prompt tokens", 0.2, 2)
    assert (
        calm == "1.050 x (1.000 to 1.100), 100 ms without, for 10 prompt tokens; load 0.2 on 2 cores before it began"
    )
    busy = cost_line(part(1.0, 1.1), "10 prompt tokens", 4.0, 2)
    assert busy == "not measurable, the machine was busy (1.000 to 1.100 x; load 4.0 on 2 cores before it began)"
    assert "not measurable" in cost_line(part(1.0, 1.5), "10 prompt tokens", 0.0, 2)
    assert cost_line(part(1.0, 1.1), "10 prompt tokens", None, None).endswith("for 10 prompt tokens")


@lru_cache(maxsize=1)
def demo() -> tuple[dict, bytes]:
    with TemporaryDirectory() as folder:
        sheet = Path(folder) / "sheet.png"
        done = run_in_process("demo", "--json", "--sheet", str(sheet))
        assert done.returncode == 0, done.stderr
        assert "omnisink:" not in done.stderr, "there are lines of progress only"
        return json.loads(done.stdout), sheet.read_bytes()


@pytest.mark.real
@pytest.mark.slow
class TestDemo:
    def test_the_sink_is_the_first_token_and_a_text_token(self):
        found, _ = demo()
        assert found["sinks"]["sinks"] == {str(layer): [[0]] for layer in range(12, 28)}
        counts = {c["modality"]: c for c in found["by_modality"]}
        assert counts["text"]["sinks"] == [0]
        assert counts["video"]["tokens"] == 64
        assert counts["audio"]["tokens"] == 100
        assert not counts["video"]["sinks"] + counts["audio"]["sinks"]

    def test_three_questions_are_answered_and_one_needs_sound(self):
        found, _ = demo()
        assert len(found["answers"]) == 3
        assert any("sound" in one["needs"] for one in found["answers"])
        assert [one["question"] for one in found["answers"]] == [question for question, *_ in QUESTIONS]
        for one in found["answers"]:
            baseline, *changed = one["answers"]
            assert baseline["answer"] == one["right"]
            assert baseline["kl_nats"] == 0.0
            assert not baseline["rotated_tokens"]
            for row in changed:
                assert set(row["rotated_tokens"]) == {str(layer) for layer in range(12, 28)}
                assert row["total_variation"] > 0

    def test_the_papers_strength_moves_the_first_answer(self):
        found, _ = demo()
        assert [one["gamma"] for one in found["methods"].values()] == [0.1, 3.0]
        baseline, tuned, paper = (row["probability"] for row in found["answers"][0]["answers"])
        assert baseline == pytest.approx(0.775, abs=5e-3)
        assert tuned == pytest.approx(0.767, abs=5e-3)
        assert paper == pytest.approx(0.620, abs=5e-3)

    def test_the_answers_are_those_of_the_settings_shown(self, smolomni):
        found, _ = demo()
        for name, settings in found["methods"].items():
            method = OutRo(gamma=settings["gamma"])
            for one in found["answers"]:
                said = smolomni.ask(one["question"], video=CLIP, choices=one["choices"] or None, method=method)
                assert [said.text] == [row["answer"] for row in one["answers"] if row["name"] == name]

    def test_the_sheet_shows_eight_frames(self):
        from PIL import Image

        with Image.open(io.BytesIO(demo()[1])) as sheet:
            assert sheet.size == (4 * 166 + 6, 2 * 182 + 6)

    def test_the_cost_is_a_ratio_of_pairs(self):
        for part in demo()[0]["cost"].values():
            assert part["pairs"] >= 3
            assert 0 < part["ratio_p20"] <= part["ratio"] <= part["ratio_p80"]
            assert part["without_ms"] > 0
            assert part["with_ms"] > 0
