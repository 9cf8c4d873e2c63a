"""The verification of ported models: each entry does what it promises, and what is wrong is noticed."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from dataclasses import replace

import pytest

from omnisink import OmnisinkError, OutRo
from omnisink.models.ports import PORTS
from omnisink.verification.ports import PORTED, ROWS
from omnisink.verification.ports.checkpoints import decoder_of
from omnisink.verification.ports.table import BEGIN, END, table, write_ports
from omnisink.verification.ports.verify import verify_port

METHOD = OutRo(gamma=0.5)
QUICK = replace(PORTED["videollama2_1"], modalities=("text", "image"), backends=("sdpa",))


@pytest.mark.parametrize("name", ROWS)
def test_every_ported_model_does_what_its_row_says(name):
    port = replace(ROWS[name], backends=ROWS[name].backends[:1])  # `make verify` runs them on all.
    result = verify_port(port, METHOD)
    assert (result.outcome, result.problems) == ("supported", [])
    assert result.backends == port.backends


def test_every_port_has_a_row():
    assert {PORTS[port.model_type] for port in PORTED.values()} == set(PORTS.values())
    for port in ROWS.values():
        words = shlex.split(port.command)
        assert words[:2] == ["omnisink", "ask"]
        assert words[words.index("--model") + 1] == port.example


def test_what_is_wrong_is_noticed():
    """Another decoder, media that are not taken or not named, and a method that leaves something behind."""

    def other(folder):
        decoder = decoder_of(folder, "Qwen2ForCausalLM")
        decoder.lm_head.weight.data[5] += 1
        return decoder

    @contextmanager
    def careless(model):
        with METHOD(model) as trace:
            yield trace
        model.get_output_embeddings().weight.data[0] += 1

    problems = verify_port(replace(QUICK, modalities=("text",), reference=other), METHOD).problems
    assert "sdpa: text: differs from Qwen2ForCausalLM" in problems
    assert "sdpa: video: is taken, though the entry does not say so" in problems
    heard = verify_port(replace(QUICK, modalities=("audio",)), METHOD)
    assert heard.outcome == "failed"
    assert "cannot hear" in heard.problems[0]
    seen = replace(QUICK, modalities=("image",))
    assert any("outputs after the block differ" in problem for problem in verify_port(seen, careless).problems)
    idle = verify_port(seen, OutRo(gamma=0.0, relax=False)).problems
    assert {"sdpa: image: no token was rotated", "sdpa: image: the method changed nothing"} <= set(idle)


def test_the_section_is_written_from_what_was_found(tmp_path):
    page = tmp_path / "models.md"
    with pytest.raises(OmnisinkError, match="cannot read"):
        write_ports([], page, {})
    page.write_text("# Head\n")
    with pytest.raises(OmnisinkError, match="no place for the ported models"):
        write_ports([], page, {})
    page.write_text(f"# Head\n\n{BEGIN}\nold\n{END}\n\ntail\n")
    result = verify_port(replace(QUICK, save=lambda folder: (_ for _ in ()).throw(ValueError("a | b"))), METHOD)
    good = replace(result, outcome="supported", problems=[], backends=("sdpa",))
    for _ in range(2):  # Writing twice is writing once.
        write_ports([result, good], page, {"omnisink": "1.2"})
        assert page.read_text() == (
            f"# Head\n\n{BEGIN}\n{table([result, good], {'omnisink': '1.2'})}\n{END}\n\ntail\n"
        )
    lines = page.read_text().splitlines()
    assert "Verified with omnisink 1.2." in lines
    assert any("| **failed**: sdpa: ValueError: a \\| b |" in line for line in lines)
    row = next(line for line in lines if "| text, image | sdpa |" in line)
    assert row.startswith("| VideoLLaMA 2.1 | `videollama2_qwen2` |")
    assert row.endswith("--model DAMO-NLP-SG/VideoLLaMA2.1-7B-16F --download` |")
