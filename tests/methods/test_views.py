"""Sink maps and recordings as they are looked at: in a line, in a notebook, as tables, compared, saved and drawn."""

from __future__ import annotations

import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from omnisink import OmnisinkError, OutRo, SinkMap, find_sinks, record
from omnisink.methods import ReplaceSinkValue
from omnisink.methods.measured import MEASURED
from omnisink.methods.measurements import Recording
from omnisink.models.adapters.spans import Span
from tests.methods.reference_edits import padded
from tests.reference_outro import prompt, tiny_llama
from tests.skips import needs


@pytest.fixture(scope="module")
def inputs() -> dict[str, Any]:
    """Make a batch of two prompts, the second padded on the left; sinks at 0 and 6 of the first."""
    return padded([prompt(13, (0, 6)), prompt(8)])


@pytest.fixture(scope="module")
def sinks(inputs) -> SinkMap:
    return find_sinks(tiny_llama(), **inputs)


@pytest.fixture(scope="module")
def recording(inputs) -> Recording:
    spans = [[Span("text", 0, 6), Span("audio", 6, 13)], [Span("text", 5, 13)]]
    return record(tiny_llama(), spans=spans, **inputs)


class Cells(HTMLParser):
    """Collect the texts of HTML, and the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_reprs_are_one_short_line(sinks, recording) -> None:
    for made in (sinks, recording):
        assert len(repr(made)) < 240
        assert "\n" not in repr(made)
        assert "tensor" not in repr(made)
    one = find_sinks(tiny_llama(), input_ids=prompt(13, (0, 6)))
    assert repr(one) == (
        "SinkMap(1 sequence of 13 tokens, 4 layers examined; "
        "sinks: position 0 at layers 0-3, position 6 at layers 0-3)"
    )
    assert "position 0 of sequence 0" in repr(sinks)
    assert repr(SinkMap({}, torch.ones(1, 1).bool())) == "SinkMap(1 sequence of 1 token, 0 layers examined; no sinks)"
    everywhere = SinkMap({7: torch.ones(1, 9).bool()}, torch.ones(1, 9).bool())
    assert "9 tokens are sinks, at layer 7" in repr(everywhere)
    assert repr(recording) == (
        "Recording(2 sequences of up to 13 tokens, 6 layers, 4 heads; 20 measurements; attention mass on: "
        "massive_activation, text, audio, text: sinks, audio: sinks)"
    )


def test_notebooks_show_a_table_and_nothing_that_runs(sinks, recording) -> None:
    shown = Cells(sinks._repr_html_())
    assert {"layers", "positions", "largest |h|", "0-3", "0 6"} <= set(shown.texts)
    listed = Cells(recording._repr_html_())
    assert set(MEASURED) <= set(listed.texts)
    assert shown.tags | listed.tags == {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    odd = replace(recording, sets=["<script>alert(1)</script>", *recording.sets[1:]])
    assert "script" not in Cells(odd._repr_html_()).tags


def test_a_sink_map_is_a_mapping_of_layers(sinks) -> None:
    assert len(sinks) == 4
    assert list(sinks) == sinks.examined == [0, 1, 2, 3]
    assert 3 in sinks
    assert 4 not in sinks
    assert sinks[3] is sinks.mask(3)
    assert torch.equal(sinks[np.int64(3)], sinks[3])
    assert bool(SinkMap({}, torch.ones(1, 1).bool()))
    with pytest.raises(OmnisinkError, match="layer 4 .*0 to 3"):
        sinks[4]
    for wrong in (slice(0, 2), "3", 1.5, (0, 1)):
        with pytest.raises(OmnisinkError, match="number of one layer"):
            sinks[wrong]


def test_sink_maps_are_compared_by_what_they_say(sinks, inputs) -> None:
    again = find_sinks(tiny_llama(), **inputs)
    assert sinks == again
    assert sinks == SinkMap.from_json(sinks.to_json())
    assert sinks != replace(sinks, criterion={"name": "other"})
    assert sinks != replace(sinks, magnitudes={})
    assert sinks != replace(sinks, masks={k: m for k, m in sinks.masks.items() if k})
    assert sinks != replace(sinks, masks={**sinks.masks, 0: ~sinks.masks[0]})
    assert sinks != replace(sinks, token_mask=torch.ones_like(sinks.token_mask))
    assert sinks != sinks.to_json()
    unknown = {0: torch.tensor([[float("nan"), 1.0]])}
    odd = SinkMap({0: torch.zeros(1, 2).bool()}, torch.ones(1, 2).bool(), {"channels": (1, 2)}, unknown)
    assert odd == SinkMap.from_json(odd.to_json())
    with pytest.raises(TypeError, match="unhashable"):
        hash(sinks)


def test_sink_maps_are_saved_and_loaded(sinks, tmp_path) -> None:
    path = sinks.save(tmp_path / "sinks.json", tokens=[["a"] * 13, ["\ud800"] * 13])
    assert SinkMap.load(path) == sinks
    assert [p.name for p in tmp_path.iterdir()] == ["sinks.json"]
    with pytest.raises(OmnisinkError, match="nothing.json"):
        SinkMap.load(tmp_path / "nothing.json")
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(OmnisinkError, match="sinks.json is not a sink map"):
        SinkMap.load(path)
    with pytest.raises(OmnisinkError, match="could not be written"):
        sinks.save(tmp_path / "no" / "folder" / "sinks.json")


def test_a_sink_map_as_a_table_of_pandas(sinks) -> None:
    pytest.importorskip("pandas")
    frame = sinks.to_dataframe()
    assert list(frame.columns) == ["sequence", "layer", "position", "sink", "magnitude"]
    found = {(b, layer, p) for layer in sinks for b in (0, 1) for p in sinks.positions(layer, b)}
    assert set(zip(frame["sequence"], frame["layer"], frame["position"], strict=True)) == found
    assert frame["sink"].all()
    row = frame[(frame["layer"] == 2) & (frame["position"] == 6) & (frame["sequence"] == 0)]
    assert row["magnitude"].tolist() == pytest.approx([sinks.magnitude(2)[1]])
    every = sinks.to_dataframe([["t"] * 13, ["u"] * 13], only_sinks=False)
    assert len(every) == 4 * (13 + 8)  # padding is left out
    assert every["sink"].sum() == len(frame)
    assert set(every[every["sequence"] == 1]["token"]) == {"u"}
    assert replace(sinks, magnitudes={}).to_dataframe()["magnitude"].isna().all()


def test_a_recording_is_indexed_by_name_and_by_layer(recording) -> None:
    assert len(recording) == 6
    assert set(recording[2]) == set(recording.arrays)
    assert (recording[2]["mass"] == recording["mass"][:, 2]).all()
    with pytest.raises(OmnisinkError, match=r"layer 9 was not measured \(measured: 0 to 5\)"):
        recording[9]
    with pytest.raises(OmnisinkError, match="was not recorded; there are"):
        recording["masses"]


def test_recordings_are_compared_by_what_they_say(recording, inputs, tmp_path) -> None:
    recording.save(tmp_path / "run")
    assert recording == Recording.load(tmp_path / "run")
    assert recording != replace(recording, facts={"model": "x"})
    assert recording != replace(recording, arrays={**recording.arrays, "mass": recording["mass"] + 1})
    assert recording != record(tiny_llama(), **inputs)
    assert recording != "recording"
    with pytest.raises(TypeError, match="unhashable"):
        hash(recording)


def test_a_recording_as_a_table_of_pandas(recording) -> None:
    pytest.importorskip("pandas")
    frame = recording.to_dataframe()
    assert list(frame.columns) == ["sequence", "layer", "head", "set", "mass"]
    assert len(frame) == recording["mass"].size
    picked = frame[(frame["sequence"] == 1) & (frame["layer"] == 4) & (frame["set"] == "text")]["mass"]
    assert picked.tolist() == recording.mass_on("text")[1, 4].tolist()
    tokens = recording.to_dataframe("value_norm")
    assert sorted(tokens[tokens["sequence"] == 1]["token"].unique()) == list(range(5, 13))
    assert set(recording.to_dataframe("marked")["criterion"]) == {"massive_activation"}
    assert set(recording.to_dataframe("parallel")["part"]) == {"whole", "sink", "rest"}
    for name in MEASURED:
        assert name in recording.to_dataframe(name).columns


def test_a_trace_says_what_was_found_and_done(inputs) -> None:
    model = tiny_llama()
    with OutRo(gamma=1.0)(model) as trace:
        assert repr(trace).endswith("Trace(no prompt has been run inside the block)")
        assert "no prompt" in trace._repr_html_()
        model(**inputs)
    rotated = sum(trace.rotated_tokens.values())
    assert f"; {rotated} token positions rotated at {len(trace.rotated_tokens)} layers; " in repr(trace)
    assert f"{len(trace.relaxed)} rows relaxed" in repr(trace)
    assert "position 0 of sequence 0 at layers 0-3" in repr(trace)
    shown = Cells(trace._repr_html_())
    assert {"layer", "sinks", "relaxed", "rotated", "skipped"} <= set(shown.texts)
    with ReplaceSinkValue()(model) as other:
        model(**inputs)
    assert repr(other).startswith("Trace(2 sequences")
    assert "rotated" not in repr(other)


def test_a_trace_as_a_table_of_pandas(inputs) -> None:
    pytest.importorskip("pandas")
    model = tiny_llama()
    with OutRo(gamma=1.0)(model) as trace:
        with pytest.raises(OmnisinkError, match="the trace is empty"):
            trace.to_dataframe()
        model(**inputs)
    frame = trace.to_dataframe().set_index("layer")
    assert frame["rotated"].to_dict() == {layer: trace.rotated_tokens.get(layer, 0) for layer in frame.index}
    assert frame["sinks"].to_dict() == {layer: int(trace.sinks[layer].sum()) for layer in trace.sinks}
    assert frame["relaxed"].sum() == len(trace.relaxed)


def test_a_trace_that_cannot_be_read_is_still_shown(inputs) -> None:
    model = tiny_llama()
    with OutRo(gamma=1.0)(model) as trace:
        model(**inputs)
    trace.record.defer_check(torch.tensor(True), OmnisinkError("something went wrong"))
    assert repr(trace).endswith("(it cannot be read: something went wrong)")
    assert "something went wrong" in trace._repr_html_()


@pytest.mark.parametrize("missing", ["pandas", "matplotlib"])
def test_what_is_not_installed_is_named(sinks, recording, monkeypatch, missing) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == missing] + [missing, f"{missing}.pyplot"]:
        monkeypatch.setitem(sys.modules, name, None)
    for made in (sinks, recording):
        with pytest.raises(
            OmnisinkError, match=f"needs (?i:{missing}), which cannot be imported.*pip install {missing}"
        ):
            made.to_dataframe() if missing == "pandas" else made.plot()


@needs("matplotlib")
def test_sink_maps_and_recordings_draw_themselves(sinks, recording, tmp_path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    ax = sinks.plot(sequence=1)
    assert ax.images[0].get_array().shape == (4, 8)  # padding is left out
    ax = sinks.plot([f"t{i}" for i in range(13)], spans=[Span("audio", 6, 8)], positions=[6, 7, 8])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["t6", "t7", "t8"]
    assert "token 6 (layers 0–3)" in ax.get_title(loc="left")
    ax = recording.plot(sequence=1)
    drawn = np.asarray(ax.images[0].get_array())
    assert np.allclose(drawn, 100 * recording.mass_on("massive_activation")[1], equal_nan=True)
    assert recording.plot(on="audio").get_title(loc="left").endswith("audio")
    ax = recording.plot("modality")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["audio", "text", "audio, sinks", "text, sinks"]
    assert recording.plot("sinks", positions=[0, 1]).images[0].get_array().shape == (6, 2)
    ax.figure.savefig(tmp_path / "modality.pdf")
    plt.close("all")
    for wrong, why in (
        (lambda: sinks.plot(sequence=2), "no sequence 2"),
        (lambda: sinks.plot(positions=[13]), "positions must name tokens from 0 on, of 13"),
        (lambda: SinkMap({}, torch.ones(1, 1).bool()).plot(), "nothing to draw"),
        (lambda: recording.plot(sequence=-1), "no sequence -1"),
        (lambda: recording.plot("head"), "no picture 'head'"),
        (lambda: recording.plot(on="video"), "no set is called 'video'"),
        (lambda: replace(recording, sets=list("abcde")).plot("modality"), "no modality was recorded"),
    ):
        with pytest.raises(OmnisinkError, match=why):
            wrong()
